// Replies on their way to a front-end. They lie in a memory file that outlives the process, and what has gone out is the position of that
// file, which sendfile(2) moves in the same call: whenever the process is killed, the next one goes on with the very next byte.
//
// sendfile(2) gives the front-end the file's own pages, which it can hold for as long as it likes. So a seat has one file for all its
// front-ends, and as soon as one of them has read everything, replies begin anew, in the other half of the file: a position that lies
// outside of the half where replies end tells that none of them has gone out.
import { closeFd, type Fd } from '../shared-memory/fd.js';
import * as libc from '../shared-memory/libc.js';
import { openMemfd, writeWhole } from '../shared-memory/memfd.js';
import type { CallMark } from '../shared-memory/unix-socket.js';

/** The most that goes out between two moments at which the front-end has read everything, bytes. Ours. */
export const MAX_UNREAD_BYTES = 256 * 1024;
/** More than {@link MAX_UNREAD_BYTES} and a reply; the file is sparse. */
const HALF_BYTES = 2 ** 20;

/** The replies to a seat's front-ends. Owns the file. */
export class Outbox {
  readonly fd: Fd;
  /** Of the half that replies are in. */
  private startsAt: number;
  /** Where the next reply goes. */
  private endsAt: number;
  private sentTo: number;
  /** The file's position; moved before the first reply of a half goes out, and after that has been written down. */
  private position: number;

  private constructor(fd: Fd, endsAt: number, position: number) {
    this.fd = fd;
    this.startsAt = endsAt < HALF_BYTES ? 0 : HALF_BYTES;
    this.endsAt = endsAt;
    this.sentTo = position >= this.startsAt && position <= endsAt ? position : this.startsAt;
    this.position = position;
  }

  /** Throws a Fault when there is no fd, or no memory. */
  static create(): Outbox {
    return new Outbox(openMemfd('vhost-rngd-replies', 2 * HALF_BYTES), 0, 0);
  }

  /** Goes on with one of another process, whose replies ended at `endsAt`; adopts `fd`, also when it throws. */
  static goOn(fd: Fd, endsAt: number): Outbox {
    const position = libc.lseek(fd, 0, libc.SEEK_CUR);
    if (position >= 0 && endsAt >= 0 && endsAt < 2 * HALF_BYTES) return new Outbox(fd, endsAt, position);
    closeFd(fd);
    throw new Error(`replies that end at ${endsAt}, and were sent up to ${position}`);
  }

  /** Where the replies end, for {@link goOn}. A reply that was added after this was written down is as if it had not been. */
  get end(): number {
    return this.endsAt;
  }

  /** Bytes that have not gone out. */
  get waiting(): number {
    return this.endsAt - this.sentTo;
  }

  /** Bytes of this half, out or not: the front-end has not read everything since the first of them. */
  get unread(): number {
    return this.endsAt - this.startsAt;
  }

  /** Begins anew: for a new front-end, or for one that has read everything. */
  startOver(): void {
    this.startsAt = HALF_BYTES - this.startsAt;
    this.endsAt = this.startsAt;
    this.sentTo = this.startsAt;
  }

  /** Puts a reply behind the others, for the front-end at `socket`. Throws a Fault when there is no memory. */
  add(reply: Uint8Array, socket: Fd): void {
    if (this.unread > 0 && this.waiting === 0 && libc.ioctlForInt(socket, libc.SIOCOUTQ) === 0)
      this.startOver();
    writeWhole(this.fd, reply, this.endsAt);
    this.endsAt += reply.length;
  }

  /** Sends what the socket takes; bytes, or a negated error number. `mark` is told of the call, and whose it is. */
  send(socket: Fd, mark: CallMark, owner: number): number {
    if (this.position !== this.sentTo) this.position = libc.lseek(this.fd, this.sentTo, libc.SEEK_SET);
    mark.enter(owner);
    const sent = libc.sendfile(socket, this.fd, this.waiting);
    mark.leave();
    if (sent > 0) {
      this.sentTo += sent;
      this.position = this.sentTo;
    }
    return sent;
  }
}
