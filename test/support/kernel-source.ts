// The kernel's generator as a source that counts as tested, for tests of what stands behind sources.
import type { EntropySource } from '../../daemon/entropy/source.js';
import * as libc from '../../shared-memory/libc.js';

export class KernelSource implements EntropySource {
  readonly spec = 'kernel';
  readonly alarms = 0;

  read(address: number, length: number): number {
    // SAFETY: the pool passes `length` bytes of its own mapping.
    return Math.max(0, libc.getrandom(address, length & ~3, libc.GRND_NONBLOCK) & ~3);
  }

  close(): void {
    // Nothing is held.
  }
}
