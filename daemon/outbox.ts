// Replies on their way to a front-end. They lie in a memory file that outlives the process, and what has gone out is the position of that
// file, which sendfile(2) moves in the same call: whenever the process is killed, the next one goes on with the very next byte.
import { writeSync } from 'node:fs';
import { closeFd, type Fd } from '../shared-memory/fd.js';
import * as libc from '../shared-memory/libc.js';
import { openMemfd } from '../shared-memory/memfd.js';
import type { CallMark } from '../shared-memory/unix-socket.js';

/** Replies only ever go behind the last one: pages that were sent are the socket's too. At 1 GB/s this lasts for weeks. */
const FILE_BYTES = 2 ** 52;
/**
 * Bytes that were sent are given back in pieces of a huge page: of a part of one the kernel would blank what the socket still has.
 * Source: Linux, truncate_inode_partial_folio().
 */
const FREED_BYTES = 2 * 2 ** 20;
/** The most that may wait for a front-end that does not read, bytes. Ours. */
export const MAX_WAITING_BYTES = 256 * 1024;

/** The replies of one connection. Owns the file until {@link fd} is closed. */
export class Outbox {
  readonly fd: Fd;
  /** Where the next reply goes; bytes up to here are in the file. */
  private endsAt: number;
  private sentTo: number;
  private freedTo: number;

  private constructor(fd: Fd, endsAt: number, sentTo: number) {
    this.fd = fd;
    this.endsAt = endsAt;
    this.sentTo = sentTo;
    this.freedTo = sentTo - (sentTo % FREED_BYTES);
  }

  /** Throws a Fault when there is no fd, or no memory. */
  static create(): Outbox {
    return new Outbox(openMemfd('vhost-rngd-replies', FILE_BYTES), 0, 0);
  }

  /** Goes on with one of another process, whose replies ended at `endsAt`; adopts `fd`, also when it throws. */
  static goOn(fd: Fd, endsAt: number): Outbox {
    const sentTo = libc.lseek(fd, 0, libc.SEEK_CUR);
    const waiting = endsAt - sentTo;
    if (sentTo >= 0 && waiting >= 0 && waiting <= MAX_WAITING_BYTES) return new Outbox(fd, endsAt, sentTo);
    closeFd(fd);
    throw new Error(`replies that end at ${endsAt}, and were sent up to ${sentTo}`);
  }

  /** Where the replies end, for {@link goOn}. A reply that was added after this was written down is as if it had not been. */
  get end(): number {
    return this.endsAt;
  }

  /** Bytes that the front-end has not been sent. */
  get waiting(): number {
    return this.endsAt - this.sentTo;
  }

  /** Puts a reply behind the others. Throws when there is no memory. */
  add(reply: Uint8Array): void {
    writeSync(this.fd, reply, 0, reply.length, this.endsAt);
    this.endsAt += reply.length;
  }

  /** Sends what the socket takes; bytes, or a negated error number. `mark` is told of the call, and whose it is. */
  send(socket: Fd, mark: CallMark, owner: number): number {
    mark.enter(owner);
    const sent = libc.sendfile(socket, this.fd, this.waiting);
    mark.leave();
    if (sent > 0) this.sentTo += sent;
    if (this.sentTo - this.freedTo >= FREED_BYTES) this.freeSent();
    return sent;
  }

  private freeSent(): void {
    const to = this.sentTo - (this.sentTo % FREED_BYTES);
    const mode = libc.FALLOC_FL_PUNCH_HOLE | libc.FALLOC_FL_KEEP_SIZE;
    libc.fallocate(this.fd, mode, this.freedTo, to - this.freedTo);
    this.freedTo = to;
  }
}
