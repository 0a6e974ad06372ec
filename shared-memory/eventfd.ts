// Event file descriptors: kick, call and err of a ring, and the wake-up of the data plane. Source: eventfd(2).
import { errnoName } from './errno.js';
import { asFd, type Fd } from './fd.js';
import { NativeMemory } from './ffi.js';
import * as libc from './libc.js';

const one = new NativeMemory(8);
one.setWide(0, 1);
const writeOne = libc.bindWrite(one, 8);
const counter = new NativeMemory(8);

/** A new eventfd, non-blocking and close-on-exec, its counter at 0. Throws when no descriptor is free. */
export function openEventfd(): Fd {
  const fd = libc.eventfd(0, libc.EFD_CLOEXEC | libc.EFD_NONBLOCK);
  if (fd < 0) throw new Error(`eventfd: ${errnoName(fd)}`);
  return asFd(fd);
}

/**
 * Adds 1 to an eventfd, or writes the 8 bytes to whatever else serves as call (virtio_uml passes a socket pair).
 * Gives 8, or a negated error number; EAGAIN means that the other side has been told already.
 */
export function signal(fd: Fd): number {
  return writeOne(fd);
}

/** Reads and clears an eventfd: its count (at most 2^32 - 1 is exact), or a negated error number. Never waits, also when a peer
 *  has made the fd blocking. */
export function readEventfd(fd: Fd): number {
  const got = libc.readNoWait(fd, counter.address, 8);
  return got < 0 ? got : (counter.words[0] ?? 0) >>> 0;
}
