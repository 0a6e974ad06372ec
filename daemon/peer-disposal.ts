// The data plane's end of letting go: what a device's front-end has passed goes to the main thread (disposal.ts), and is
// counted until it is gone. A front-end that passes more than can be let go has to wait, and so has the next one.
import { Errno } from '../shared-memory/errno.js';
import type { Disposal } from '../shared-memory/disposal.js';
import type { Fd } from '../shared-memory/fd.js';
import * as libc from '../shared-memory/libc.js';
import type { DataPlaneMessage, Disposable } from './data-plane-messages.js';
import type { Backlog } from './systemd/notify-queue.js';

/**
 * What may wait of one device before its messages and new front-ends wait too, and what is left when they go on. One
 * message brings up to 253 fds more, and the end of a connection its regions and fds. Ours.
 */
const MAX_WAITING = 64;
const GO_ON_AT = 32;

/** Lets go of what one device's front-ends pass. */
export class PeerDisposal implements Disposal {
  /** One word; the main thread takes away what is gone. */
  private readonly waiting = new Int32Array(new SharedArrayBuffer(4));
  private readonly device: number;
  private readonly post: (message: DataPlaneMessage) => void;
  private readonly released: (fd: Fd) => void;
  private readonly kept: Backlog | undefined;

  /**
   * `released` is told of each fd that is let go, before its number can come again. `kept`: what is to be kept for the next process, which
   * must not be too much either.
   */
  constructor(
    device: number,
    post: (message: DataPlaneMessage) => void,
    released: (fd: Fd) => void = () => undefined,
    kept?: Backlog,
  ) {
    this.device = device;
    this.post = post;
    this.released = released;
    this.kept = kept;
  }

  closeFd(fd: Fd): void {
    this.released(fd);
    this.hand({ fd, how: 'close' });
  }

  /** As closeFd, for a socket whose traffic ends with this: no other fd of ours stands for it. */
  endSocket(fd: Fd): void {
    this.released(fd);
    this.hand({ fd, how: 'end' });
  }

  unmap(address: number, length: number): void {
    this.hand({ address, length });
  }

  /** Signals a pipe, whose write(2) cannot be interrupted while its VMM holds the pipe's lock. Gives what signal() gives. */
  signalAside(fd: Fd): number {
    const events = libc.poll(fd, libc.POLLOUT, 0);
    if ((events & libc.POLLERR) !== 0) return -Errno.EPIPE;
    // Full, or a signal is on its way: the other side is told already.
    if ((events & libc.POLLOUT) === 0 || this.isFull()) return -Errno.EAGAIN;
    const copy = libc.fcntl(fd, libc.F_DUPFD_CLOEXEC, 0);
    if (copy >= 0) this.hand({ fd: copy, how: 'signal' });
    return copy < 0 ? copy : 8;
  }

  isFull(): boolean {
    return Atomics.load(this.waiting, 0) >= MAX_WAITING || this.kept?.isFull() === true;
  }

  /** True when what once was too much has gone. */
  isDrained(): boolean {
    return Atomics.load(this.waiting, 0) <= GO_ON_AT && this.kept?.isDrained() !== false;
  }

  private hand(what: Disposable): void {
    Atomics.add(this.waiting, 0, 1);
    this.post({ kind: 'dispose', device: this.device, waiting: this.waiting, what });
  }
}
