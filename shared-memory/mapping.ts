// Mappings: memory shared with a guest, and locked memory of our own. Source: mmap(2), madvise(2).
//
// A mapping owns its addresses and every view of them. Views are handed to exactly one owner, which drops them
// before unmap(): MemoryRegion keeps its windows private, and a ring drops its views when its memory table goes.
// A view that is garbage is harmless; one that is used after unmap() would be a crash.
import type { Disposal } from './disposal.js';
import { errnoName } from './errno.js';
import { viewOf } from './ffi.js';
import * as libc from './libc.js';

/** The size of a page; mappings begin and end on one. 4 KiB is a divisor of every page size Linux has. */
export const PAGE_BYTES = 4096;

/** Bytes mapped into this process. */
export class Mapping {
  readonly address: number;
  readonly length: number;

  private constructor(address: number, length: number) {
    this.address = address;
    this.length = length;
  }

  /**
   * Maps `length` bytes of a file, shared and writable, left out of core files; gives a negated error number on
   * failure. `offset` must be aligned as the file system asks. `reserve` takes the pages' reservation now, so
   * that an empty huge-page pool is an error here and not a SIGBUS later.
   */
  static ofFile(fd: number, offset: number, length: number, reserve: boolean): Mapping | number {
    const flags = libc.MAP_SHARED | (reserve ? 0 : libc.MAP_NORESERVE);
    const protection = libc.PROT_READ | libc.PROT_WRITE;
    const address = libc.mmap({ length, protection, flags, fd, offset });
    if (address < 0) return address;
    libc.madvise(address, length, libc.MADV_DONTDUMP);
    return new Mapping(address, length);
  }

  /**
   * Anonymous memory for secrets: wiped in a forked child, left out of core files, and locked in RAM where the
   * limit allows (`locked` tells). Throws when there is no memory.
   */
  static forSecrets(length: number): { readonly mapping: Mapping; readonly locked: boolean } {
    const flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS;
    const protection = libc.PROT_READ | libc.PROT_WRITE;
    const address = libc.mmap({ length, protection, flags, fd: -1, offset: 0 });
    if (address < 0) throw new Error(`mmap of ${length} bytes: ${errnoName(address)}`);
    libc.madvise(address, length, libc.MADV_DONTDUMP);
    libc.madvise(address, length, libc.MADV_WIPEONFORK);
    return { mapping: new Mapping(address, length), locked: libc.mlock(address, length) === 0 };
  }

  /** A view of part of the mapping; the caller keeps it to itself and drops it before unmap(). */
  view(offset: number, length: number): Buffer {
    if (!(offset >= 0 && length >= 1 && offset + length <= this.length)) {
      throw new RangeError(`view of ${length} bytes at ${offset} of a mapping of ${this.length}`);
    }
    // SAFETY: the range was just checked to lie inside this mapping.
    return viewOf(this.address + offset, length);
  }

  /** Unmaps, by way of `disposal` where a peer's file is behind it. SAFETY: every view was dropped by its owner. */
  unmap(disposal?: Disposal): void {
    if (disposal === undefined) libc.munmap(this.address, this.length);
    else disposal.unmap(this.address, this.length);
  }
}
