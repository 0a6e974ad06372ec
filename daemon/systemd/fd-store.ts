// The service manager's file descriptor store: what is kept there is passed to the next process of the service, whatever has become of
// this one. Source: sd_notify(3), FDSTORE=1; systemd.service(5), FileDescriptorStoreMax=.
import { Errno } from '../../shared-memory/errno.js';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import type { FdStore } from '../handover/fd-vault.js';
import type { NotifySocket } from './notify-socket.js';

/** A full socket is tried again after so long. Ours. */
export const RETRY_MS = 5;

/** The last messages of a process wait for at most a second in all. Ours. */
const DRAIN_LOOK_MS = 10;
const DRAIN_LOOKS = 100;

/** What could not be sent yet; the fd is a copy of our own. */
interface Waiting {
  readonly text: string;
  readonly fd: Fd | undefined;
}

/** Sends what is to be kept and forgotten, in order, and never waits. */
export class ServiceFdStore implements FdStore {
  private readonly socket: NotifySocket;
  private readonly waiting: Waiting[] = [];
  private readonly retry: () => void;
  /** True once something could not be sent at all. */
  private hasLost = false;

  /** `retry` is called when something waits: {@link flush} is then to be called after {@link RETRY_MS}. */
  constructor(socket: NotifySocket, retry: () => void) {
    this.socket = socket;
    this.retry = retry;
  }

  keep(name: string, fd: Fd): void {
    // FDPOLL=0: it is for us to notice that a peer has gone, with all that belongs to it.
    const text = `FDSTORE=1\nFDPOLL=0\nFDNAME=${name}`;
    if (this.waiting.length === 0 && this.send(text, fd)) return;
    const copy = libc.fcntl(fd, libc.F_DUPFD_CLOEXEC, 0);
    if (copy >= 0) this.put({ text, fd: asFd(copy) });
    else this.hasLost = true;
  }

  forget(name: string): void {
    this.tell(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  /** Sends assignments without an fd, behind what was to be kept before. */
  tell(text: string): void {
    if (this.waiting.length === 0 && this.send(text, undefined)) return;
    this.put({ text, fd: undefined });
  }

  /** False when the socket is full. */
  private send(text: string, fd: Fd | undefined): boolean {
    const sent = this.socket.send(text, fd === undefined ? [] : [fd]);
    if (sent === -Errno.EAGAIN) return false;
    if (sent < 0) this.hasLost = true;
    return true;
  }

  private put(one: Waiting): void {
    this.waiting.push(one);
    if (this.waiting.length === 1) this.retry();
  }

  /** Sends what waits, as far as the socket takes it. */
  flush(): void {
    if (!this.sendWaiting()) this.retry();
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
