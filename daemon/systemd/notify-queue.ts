// What a service manager must not miss, in order, without ever waiting for it: words, and what goes into its file descriptor store, from
// where the next process of the service gets it, whatever has become of this one.
// Source: sd_notify(3), FDSTORE=1; systemd.service(5), FileDescriptorStoreMax=.
import { Errno, errnoName } from '../../shared-memory/errno.js';
import { asFd, type Fd } from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import type { FdStore } from '../handover/fd-vault.js';
import { NotifySocket } from './notify-socket.js';

/** A socket that takes nothing for now is tried again after so long. Ours. */
export const RETRY_MS = 5;

/** The last messages of a process wait for at most a second in all. Ours. */
const DRAIN_LOOK_MS = 10;
const DRAIN_LOOKS = 100;

/**
 * From so many that wait on, whoever has something to keep is to wait, until half of them have gone: each takes a file, and is lost with
 * the process. Ours.
 */
const MOST_WAITING = 512;
const GO_ON_AT = MOST_WAITING / 2;
/** What is sent at a time of what waits; then the thread goes on with the rest of its work. Ours. */
const MOST_AT_A_TIME = 64;

/** What could not be sent yet; the fd is a copy of our own, of a file that may be a peer's. */
interface Waiting {
  readonly text: string;
  readonly fd: Fd | undefined;
}

/** Something that others wait for when it is too much. */
export interface Backlog {
  isFull(): boolean;
  /** True when what once was too much has gone. */
  isDrained(): boolean;
}

/** What a queue tells. */
export interface NotifyQueueEvents {
  /** Something waits: flush() is to be called after {@link RETRY_MS}. */
  readonly waits: () => void;
  /** Something could not be sent and never will be; why. */
  readonly lost: (error: string) => void;
  /** Closes a copy of a peer's file, which may take for ever. */
  readonly letGo: (fd: Fd) => void;
}

/** Errors of a moment: the socket is full, or the kernel has too many fds under way, or no memory. */
const NOT_NOW: readonly number[] = [Errno.EAGAIN, Errno.ENOBUFS, Errno.ENOMEM, Errno.ETOOMANYREFS];

/** Sends in order, and never waits. */
export class NotifyQueue implements FdStore, Backlog {
  private readonly socket: NotifySocket;
  private readonly on: NotifyQueueEvents;
  private readonly waiting: Waiting[] = [];
  private hasLost = false;

  constructor(socket: NotifySocket, on: NotifyQueueEvents) {
    this.socket = socket;
    this.on = on;
  }

  /** In a thread with an event loop of node's own, which sends what waits; undefined where there is no service manager. */
  static open(
    address: string | undefined,
    on: Pick<NotifyQueueEvents, 'lost' | 'letGo'>,
  ): NotifyQueue | undefined {
    const socket = NotifySocket.open(address);
    if (socket === undefined) return undefined;
    const queue: NotifyQueue = new NotifyQueue(socket, {
      waits: () => setTimeout(() => queue.flush(), RETRY_MS),
      ...on,
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

  /** Sends of what waits what the socket takes, in good time. */
  flush(): void {
    if (!this.sendWaiting(MOST_AT_A_TIME)) this.on.waits();
  }

  isFull(): boolean {
    return this.waiting.length >= MOST_WAITING;
  }

  isDrained(): boolean {
    return this.waiting.length <= GO_ON_AT;
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
    for (const { fd } of this.waiting.splice(0)) if (fd !== undefined) this.on.letGo(fd);
    this.socket.close();
  }

  /** Sends `most` of what waits; true when nothing is left. */
  private sendWaiting(most = Infinity): boolean {
    let sent = 0;
    for (const { text, fd } of this.waiting) {
      if (sent === most || !this.send(text, fd)) break;
      if (fd !== undefined) this.on.letGo(fd);
      sent++;
    }
    this.waiting.splice(0, sent);
    return this.waiting.length === 0;
  }
}
