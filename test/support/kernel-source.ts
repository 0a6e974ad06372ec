// The kernel's generator as a source that counts as tested, for tests of what stands behind sources.
import type { EntropySource } from '../../daemon/entropy/source.js';
import * as libc from '../../shared-memory/libc.js';

export class KernelSource implements EntropySource {
  readonly spec = 'kernel';
  readonly alarms = 0;
  /** What the next reads give at most, in turn; then there is no bound. Multiples of 4. */
  bounds: number[] = [];

  read(address: number, length: number): number {
    const wanted = Math.min(length & ~3, this.bounds.shift() ?? Infinity);
    // SAFETY: the pool passes `length` bytes of its own mapping.
    return Math.max(0, libc.getrandom(address, wanted, libc.GRND_NONBLOCK) & ~3);
  }

  close(): void {
    // Nothing is held.
  }
}
