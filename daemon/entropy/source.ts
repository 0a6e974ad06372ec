// What an entropy source is: raw, as a device gives it, and tested, as the pool takes it.
//
// Data path: raw source -> tested-source.ts -> fed-queue.ts -> pool.ts. Up to the queue it is the source's own thread
// (reader-thread.ts), behind it the data plane's, so that no source, and no test of its bytes, costs a guest time.
import { closeSync, constants, openSync, statSync } from 'node:fs';
import { Fault } from '../../protocol/fault.js';
import { Errno } from '../../shared-memory/errno.js';
import * as libc from '../../shared-memory/libc.js';

/** Bytes as a device gives them, not tested. Used by one thread, in which it may wait. */
export interface RawSource {
  /** It receives in its own time, so its thread's event loop has to turn. */
  readonly receives?: true;
  /** Why the last read failed, where the error number does not say it. */
  readonly failure?: string | undefined;
  /** Opens, or opens anew after letGo(): undefined, or why it cannot be opened. */
  open(): string | undefined;
  /**
   * Stores up to `length` bytes at `address`: the bytes stored, 0 when it has none now, or a negated error number when
   * it has failed (ENODATA: it has come to its end).
   */
  read(address: number, length: number): number;
  /** After a failure: forgets what has arrived, and lets a device go until open(). */
  letGo(): void;
  close(): void;
}

/** A raw source that is open from the start. */
export type OpenSource = Pick<RawSource, 'read' | 'close' | 'failure'>;

/** Bytes that have passed every test, as the data plane takes them. Never waits. */
export interface EntropySource {
  /** As the operator wrote it: `random:/dev/random`. */
  readonly spec: string;
  /** Health tests that this source has failed; when it has changed, nothing that waits of its bytes is used. */
  readonly alarms: number;
  /** Stores up to `length` bytes at `address`: the bytes stored, 0 when it has none now. Both are multiples of 4. */
  read(address: number, length: number): number;
  close(): void;
}

/** Character devices 1:8 and 1:9, random and urandom. Source: random(4). */
const MEM_MAJOR = 1;
const RANDOM_MINORS: readonly number[] = [8, 9];

/** True when `path` is the kernel's own random device, by device number and not by name; false when it is not there. */
export function isKernelRandom(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return (
    stat?.isCharacterDevice() === true &&
    stat.rdev >> 8 === MEM_MAJOR &&
    RANDOM_MINORS.includes(stat.rdev & 0xff)
  );
}

/** A device file, or in tests another one, held open for as long as the daemon runs. Source: random(4), hwrng. */
export class DeviceSource implements RawSource {
  private readonly path: string;
  private fd = -1;

  constructor(path: string) {
    this.path = path;
  }

  open(): string | undefined {
    this.letGo();
    try {
      this.fd = openSync(this.path, constants.O_RDONLY | constants.O_NONBLOCK);
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  read(address: number, length: number): number {
    // SAFETY: the caller passes `length` bytes of its own mapping.
    const got = libc.read(this.fd, address, length);
    return got === 0 ? -Errno.ENODATA : noneOnRetry(got);
  }

  letGo(): void {
    if (this.fd >= 0) closeSync(this.fd);
    this.fd = -1;
  }

  close(): void {
    this.letGo();
  }
}

/** getrandom(2), which gives nothing until the kernel's pool is ready; never GRND_INSECURE. */
export class GetrandomSource implements RawSource {
  open(): undefined {
    return undefined;
  }

  read(address: number, length: number): number {
    // SAFETY: as in DeviceSource.
    return noneOnRetry(libc.getrandom(address, length, libc.GRND_NONBLOCK));
  }

  letGo(): void {
    // Nothing is held: the bytes come from a system call without a descriptor.
  }

  close(): void {
    this.letGo();
  }
}

/** A source that is made anew each time it is opened. */
export class ReopenedSource implements RawSource {
  private readonly make: () => OpenSource | Fault;
  private source: OpenSource | undefined;

  constructor(make: () => OpenSource | Fault) {
    this.make = make;
  }

  get failure(): string | undefined {
    return this.source?.failure;
  }

  open(): string | undefined {
    this.letGo();
    const made = this.make();
    if (made instanceof Fault) return made.message;
    this.source = made;
    return undefined;
  }

  read(address: number, length: number): number {
    return this.source?.read(address, length) ?? 0;
  }

  letGo(): void {
    this.source?.close();
    this.source = undefined;
  }

  close(): void {
    this.letGo();
  }
}

/** EAGAIN (the pool is not ready yet) and EINTR are no failure: there is nothing now. */
function noneOnRetry(result: number): number {
  return result === -Errno.EAGAIN || result === -Errno.EINTR ? 0 : result;
}
