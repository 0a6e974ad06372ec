// What an entropy source is to the data plane, and which ones can be read there without ever waiting.
//
// Data path: the pool refills from here. A source that could make the data plane wait is read by a thread of its
// own (reader-thread.ts) and stands here only with the bytes that it has delivered already.
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { Errno } from '../../shared-memory/errno.js';
import * as libc from '../../shared-memory/libc.js';

/** A source of entropy, used by one thread. */
export interface EntropySource {
  /** As the operator wrote it: `random:/dev/random`. */
  readonly spec: string;
  /**
   * Stores up to `length` bytes at `address`, without waiting: the bytes stored, 0 when it has none now, or a
   * negated error number when it has failed.
   */
  read(address: number, length: number): number;
  close(): void;
}

/** Character devices 1:8 and 1:9, random and urandom, never wait once opened with O_NONBLOCK. Source: random(4). */
const MEM_MAJOR = 1;
const RANDOM_MINORS: readonly number[] = [8, 9];

/** True when `path` is the kernel's own random device, by device number and not by name. */
export function isKernelRandom(path: string): boolean {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const { rdev } = fstatSync(fd);
    return (
      rdev >> 8 === MEM_MAJOR && RANDOM_MINORS.includes(rdev & 0xff) && fstatSync(fd).isCharacterDevice()
    );
  } finally {
    closeSync(fd);
  }
}

/** The kernel's random device, held open for as long as the daemon runs. Source: random(4). */
export class KernelRandomSource implements EntropySource {
  readonly spec: string;
  private readonly fd: number;

  /** Throws node's error when `path` cannot be opened. */
  constructor(path: string) {
    this.spec = `random:${path}`;
    this.fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  }

  read(address: number, length: number): number {
    // SAFETY: the pool passes `length` bytes of its own mapping.
    return noneOnRetry(libc.read(this.fd, address, length));
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** getrandom(2), which gives nothing until the kernel's pool is ready; never GRND_INSECURE. */
export class GetrandomSource implements EntropySource {
  readonly spec = 'getrandom';

  read(address: number, length: number): number {
    // SAFETY: as in KernelRandomSource.
    return noneOnRetry(libc.getrandom(address, length, libc.GRND_NONBLOCK));
  }

  close(): void {
    // Nothing is held: the bytes come from a system call without a descriptor.
  }
}

/** EAGAIN (the pool is not ready yet) and EINTR are no failure: there is nothing now. */
function noneOnRetry(result: number): number {
  return result === -Errno.EAGAIN || result === -Errno.EINTR ? 0 : result;
}
