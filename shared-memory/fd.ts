// File descriptors: who may close one, and what an fd that a peer passed really is.
//
// Ownership: whoever holds an `Fd` in a field owns it and closes it exactly once. A function that takes an `Fd`
// as an argument borrows it, unless its name says `take` or `adopt`.
import { fstatSync, readlinkSync } from 'node:fs';
import * as libc from './libc.js';

/** An open file descriptor of this process. */
export type Fd = number & { readonly __brand: 'Fd' };

/** Brands a number that a system call returned as an open descriptor. */
export function asFd(number: number): Fd {
  return number as Fd;
}

/** Closes; an fd is gone after close(2) whatever it returns, so there is nothing to report. */
export function closeFd(fd: Fd): void {
  libc.close(fd);
}

/** What lies behind an fd that a peer passed, as far as the daemon decides on it. */
export type FdKind =
  'eventfd' | 'pipe' | 'socket' | 'regular file' | 'directory' | 'character device' | 'other';

/** Tells what `fd` is. Source: proc(5), `/proc/self/fd`, which names anonymous inodes. */
export function fdKind(fd: Fd): FdKind {
  const stat = fstatSync(fd);
  if (stat.isFile()) return 'regular file';
  if (stat.isDirectory()) return 'directory';
  if (stat.isFIFO()) return 'pipe';
  if (stat.isSocket()) return 'socket';
  if (stat.isCharacterDevice()) return 'character device';
  return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]' ? 'eventfd' : 'other';
}

/** The size of the file behind `fd` in bytes. */
export function fileBytes(fd: Fd): bigint {
  return fstatSync(fd, { bigint: true }).size;
}

/** Makes reads and writes return EAGAIN instead of waiting; the setting is shared with whoever passed the fd. */
export function setNonBlocking(fd: Fd): void {
  const flags = libc.fcntl(fd, libc.F_GETFL, 0);
  if (flags >= 0 && (flags & libc.O_NONBLOCK) === 0) libc.fcntl(fd, libc.F_SETFL, flags | libc.O_NONBLOCK);
}

/** True when no one can shrink the file any more, so that a mapping of it never raises SIGBUS. */
export function isSealedAgainstShrinking(fd: Fd): boolean {
  const seals = libc.fcntl(fd, libc.F_GET_SEALS, 0);
  return seals >= 0 && (seals & libc.F_SEAL_SHRINK) !== 0;
}
