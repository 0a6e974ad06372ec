// What a service manager must not miss, in order, without ever waiting for it: words, and what goes into its file descriptor store, from
// where the next process of the service gets it, whatever has become of this one.
// Source: sd_notify(3), FDSTORE=1; systemd.service(5), FileDescriptorStoreMax=.
import { Errno, errnoName } from '../../shared-memory/errno.js';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import type { FdStore } from '../handover/fd-vault.js';
import { NotifySocket } from './notify-socket.js';

/** A socket that takes nothing for now is tried again after so long. Ours. */
export const RETRY_MS = 5;

/** The last messages of a process wait for at most a second in all. Ours. */
const DRAIN_LOOK_MS = 10;
const DRAIN_LOOKS = 100;

/** What could not be sent yet; the fd is a copy of our own. */
interface Waiting {
  readonly text: string;
  readonly fd: Fd | undefined;
}

/** What a queue tells. */
export interface NotifyQueueEvents {
  /** Something waits: flush() is to be called after {@link RETRY_MS}. */
  readonly waits: () => void;
  /** Something could not be sent and never will be; why. */
  readonly lost: (error: string) => void;
}

/** Errors of a moment: the socket is full, or the kernel has too many fds under way, or no memory. */
const NOT_NOW: readonly number[] = [Errno.EAGAIN, Errno.ENOBUFS, Errno.ENOMEM, Errno.ETOOMANYREFS];

/** Sends in order, and never waits. */
export class NotifyQueue implements FdStore {
  private readonly socket: NotifySocket;
  private readonly on: NotifyQueueEvents;
  private readonly waiting: Waiting[] = [];
  private hasLost = false;

  constructor(socket: NotifySocket, on: NotifyQueueEvents) {
    this.socket = socket;
    this.on = on;
  }

  /** In a thread with an event loop of node's own, which sends what waits; undefined where there is no service manager. */
  static open(address: string | undefined, lost: NotifyQueueEvents['lost']): NotifyQueue | undefined {
    const socket = NotifySocket.open(address);
    if (socket === undefined) return undefined;
    const queue: NotifyQueue = new NotifyQueue(socket, {
      waits: () => setTimeout(() => queue.flush(), RETRY_MS),
      lost,
    });
    return queue;
  }

  keep(name: string, fd: Fd): void {
    // FDPOLL=0: it is for us to notice that a peer has gone, with all that belongs to it.
    const text = `FDSTORE=1\nFDPOLL=0\nFDNAME=${name}`;
    if (this.waiting.length === 0 && this.send(text, fd)) return;
    const copy = libc.fcntl(fd, libc.F_DUPFD_CLOEXEC, 0);
    if (copy >= 0) this.put({ text, fd: asFd(copy) });
    else this.lose(copy);
  }

  forget(name: string): void {
    this.tell(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  /** Sends assignments without an fd, behind what was to be kept before. */
  tell(text: string): void {
    if (this.waiting.length === 0 && this.send(text, undefined)) return;
    this.put({ text, fd: undefined });
  }

  /** False when it cannot be sent now. */
  private send(text: string, fd: Fd | undefined): boolean {
    const sent = this.socket.send(text, fd === undefined ? [] : [fd]);
    if (NOT_NOW.includes(-sent)) return false;
    if (sent < 0) this.lose(sent);
    return true;
  }

  private lose(error: number): void {
    this.hasLost = true;
    this.on.lost(errnoName(error));
  }

  private put(one: Waiting): void {
    this.waiting.push(one);
    if (this.waiting.length === 1) this.on.waits();
  }

  /** Sends what waits, as far as the socket takes it. */
  flush(): void {
    if (!this.sendWaiting()) this.on.waits();
  }

  /** The process ends: sends what waits, and waits for the service manager to take it, for a bounded time; true when it has all that was ever sent. */
  drain(): boolean {
    for (let left = DRAIN_LOOKS; left > 0; left--) {
      if (this.sendWaiting()) return !this.hasLost;
      this.socket.waitForRoom(DRAIN_LOOK_MS);
    }
    return this.sendWaiting() && !this.hasLost;
  }

  /** Closes the socket; what still waits is not sent. */
  close(): void {
    for (const { fd } of this.waiting.splice(0)) if (fd !== undefined) closeFd(fd);
    this.socket.close();
  }

  /** True when nothing is left. */
  private sendWaiting(): boolean {
    for (let one = this.waiting[0]; one !== undefined; one = this.waiting[0]) {
      if (!this.send(one.text, one.fd)) return false;
      if (one.fd !== undefined) closeFd(one.fd);
      this.waiting.shift();
    }
    return true;
  }
}
