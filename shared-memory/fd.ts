// File descriptors: who may close one, and what an fd that a peer passed really is.
//
// Ownership: an `Fd` has one owner, which closes it, or hands it to Disposal, exactly once; a field owns unless its comment
// says "borrowed". A function or constructor that is given an `Fd` borrows it for the call, unless it closes it by name or
// its comment says that it adopts it, or owns it from there on.
import { readlinkSync } from 'node:fs';
import { NativeMemory } from './ffi.js';
import * as libc from './libc.js';

/** Always open: node opens /dev/null where nothing else is. */
const STDERR = 2;

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

/** Whether this process may open `count` files more, for now. */
export function canOpen(count: number): boolean {
  const copies: Fd[] = [];
  while (copies.length < count) {
    const copy = libc.fcntl(STDERR, libc.F_DUPFD_CLOEXEC, 0);
    if (copy < 0) break;
    copies.push(asFd(copy));
  }
  for (const copy of copies) closeFd(copy);
  return copies.length === count;
}

/** What lies behind an fd that a peer passed, as far as the daemon decides on it. */
export type FdKind =
  'eventfd' | 'pipe' | 'socket' | 'regular file' | 'directory' | 'character device' | 'other';

/** What is known of an fd without asking any file server. */
export interface FdInfo {
  readonly kind: FdKind;
  /** The file's size. */
  readonly bytes: bigint;
  /** What the file system works in: the page size, or the size of a huge page. */
  readonly blockBytes: number;
  /** False for a file whose pages come from somewhere that may never answer: FUSE, NFS and the like. */
  readonly local: boolean;
}

// struct statx. Source: statx(2), linux/stat.h.
const STATX_BYTES = 256;
const STATX_BLKSIZE = 4;
const STATX_MODE = 28;
const STATX_SIZE = 40;
const STATX_DEV_MAJOR = 136;
const S_IFMT = 0o170000;
const KINDS_BY_MODE: ReadonlyMap<number, FdKind> = new Map<number, FdKind>([
  [0o100000, 'regular file'],
  [0o040000, 'directory'],
  [0o010000, 'pipe'],
  [0o140000, 'socket'],
  [0o020000, 'character device'],
]);
const stat = new NativeMemory(STATX_BYTES);

/** Looks at `fd`, which may be anything that a hostile peer can pass; never waits and never throws. */
export function inspectFd(fd: Fd): FdInfo {
  if (libc.statxCached(fd, stat.address) < 0)
    return { kind: 'other', bytes: 0n, blockBytes: 0, local: false };
  const known = KINDS_BY_MODE.get(stat.bytes.readUInt16LE(STATX_MODE) & S_IFMT);
  return {
    kind: known ?? (isEventfd(fd) ? 'eventfd' : 'other'),
    bytes: stat.bytes.readBigUInt64LE(STATX_SIZE),
    blockBytes: stat.bytes.readUInt32LE(STATX_BLKSIZE),
    // Only memfds, tmpfs and hugetlbfs know seals; other file systems without a disk of their own have major 0.
    local: libc.fcntl(fd, libc.F_GET_SEALS, 0) >= 0 || stat.bytes.readUInt32LE(STATX_DEV_MAJOR) !== 0,
  };
}

/** The kind alone, as {@link inspectFd}. */
export function fdKind(fd: Fd): FdKind {
  return inspectFd(fd).kind;
}

/** Anonymous inodes have no type of their own but a name. Source: proc(5), `/proc/self/fd`. */
function isEventfd(fd: Fd): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventfd]';
  } catch {
    return false;
  }
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
