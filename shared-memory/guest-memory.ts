// The memory table: which guest-physical and which front-end addresses lie where in this process.
//
// Data path: a descriptor's address is found here and its bytes are written here. Two address spaces look alike
// and never mix: ring addresses are the front-end's virtual ones, descriptor addresses are guest-physical.
// Source: vhost-user, "Memory regions description" and "Communication" (address spaces).
import { Fault } from '../protocol/fault.js';
import type { Disposal } from './disposal.js';
import type { Fd } from './fd.js';
import { MemoryRegion, type MemoryPolicy, type OwnMemory, type RegionDescription } from './memory-region.js';

/** An address in the front-end's own address space, as SET_VRING_ADDR gives it. */
export type FrontendVirtAddr = bigint & { readonly __brand: 'FrontendVirtAddr' };

/** Brands a 64-bit address that came in SET_VRING_ADDR. */
export function asFrontendVirtAddr(address: bigint): FrontendVirtAddr {
  return address as FrontendVirtAddr;
}

/** Where a front-end address lies: a region and the offset in it, bytes. */
export interface RegionPlace {
  readonly region: MemoryRegion;
  readonly offset: number;
}

/** An immutable table of mapped regions; a new table is built fully before it takes the old one's place. */
export class GuestMemory {
  readonly regions: readonly MemoryRegion[];
  /** The region of the last look-up: nearly every request of a guest uses the same one. */
  private last = 0;
  private foundOffset = 0;

  private constructor(regions: readonly MemoryRegion[]) {
    this.regions = regions;
  }

  /**
   * Maps every region (one fd each, same order), and adopts the fds. On a fault nothing stays mapped, and the fds are the
   * caller's.
   *
   * Refuses regions that overlap in either address space.
   */
  static map(
    descriptions: readonly RegionDescription[],
    fds: readonly Fd[],
    policy: MemoryPolicy,
  ): GuestMemory | Fault {
    const mapped: MemoryRegion[] = [];
    for (const [i, description] of descriptions.entries()) {
      const fd = fds[i];
      const region =
        fd === undefined
          ? new Fault(
              'request',
              'memory_fd_count',
              `expected ${descriptions.length} memory fds, got ${fds.length}`,
            )
          : (overlap(description, mapped) ?? MemoryRegion.map(description, fd, policy));
      if (region instanceof Fault) {
        // At once: nothing was touched yet, and the caller still holds the fds, so no page is freed.
        for (const earlier of mapped) earlier.unmapOnly();
        return region;
      }
      mapped.push(region);
    }
    return new GuestMemory(mapped);
  }

  /** A table without regions, for ADD_MEM_REG to begin with. */
  static empty(): GuestMemory {
    return new GuestMemory([]);
  }

  /**
   * This table and one more region (ADD_MEM_REG), whose fd it adopts unless there is a fault; the regions are shared with the
   * old table, which is dropped.
   */
  withRegion(description: RegionDescription, fd: Fd, policy: MemoryPolicy): GuestMemory | Fault {
    const region = overlap(description, this.regions) ?? MemoryRegion.map(description, fd, policy);
    return region instanceof Fault ? region : new GuestMemory([...this.regions, region]);
  }

  /** The region that matches in all but the mmap offset, as REM_MEM_REG names it. */
  find(description: RegionDescription): MemoryRegion | undefined {
    return this.regions.find(
      ({ description: known }) =>
        known.guestPhysAddr === description.guestPhysAddr &&
        known.userAddr === description.userAddr &&
        known.size === description.size,
    );
  }

  /** This table without `region`; the caller unmaps it once no ring uses it. */
  without(region: MemoryRegion): GuestMemory {
    return new GuestMemory(this.regions.filter((other) => other !== region));
  }

  /** Where `length` bytes from a front-end address lie, if one region holds them all. */
  findFrontend(address: FrontendVirtAddr, length: number): RegionPlace | undefined {
    for (const region of this.regions) {
      const offset = address - region.description.userAddr;
      if (offset >= 0n && offset + BigInt(length) <= region.description.size) {
        return { region, offset: Number(offset) };
      }
    }
    return undefined;
  }

  /** True when every byte from a guest-physical address on lies in some region; a span may cross regions. */
  covers(high: number, low: number, length: number): boolean {
    let left = length;
    for (let at = 0; left > 0;) {
      const region = this.locate(high, low + at);
      if (region === undefined) return false;
      const span = Math.min(left, region.size - this.foundOffset);
      at += span;
      left -= span;
    }
    return true;
  }

  /**
   * Writes `length` bytes of `source` to a guest-physical address that {@link covers} has confirmed.
   *
   * Gives 0, or EFAULT negated when the memory has vanished since.
   */
  // eslint-disable-next-line max-params -- the data path takes numbers, not objects
  write(high: number, low: number, source: OwnMemory, sourceOffset: number, length: number): number {
    for (let at = 0; at < length;) {
      const region = this.locate(high, low + at);
      if (region === undefined) return NOT_COVERED;
      const span = Math.min(length - at, region.size - this.foundOffset);
      const failed = region.copyIn(this.foundOffset, source, sourceOffset + at, span);
      if (failed !== 0) return failed;
      at += span;
    }
    return 0;
  }

  /** Reads from a guest-physical address; as {@link write}. */
  read(high: number, low: number, target: OwnMemory, length: number): number {
    for (let at = 0; at < length;) {
      const region = this.locate(high, low + at);
      if (region === undefined) return NOT_COVERED;
      const span = Math.min(length - at, region.size - this.foundOffset);
      const failed = region.copyOut(this.foundOffset, target, at, span);
      if (failed !== 0) return failed;
      at += span;
    }
    return 0;
  }

  /** The region of a guest-physical address, its offset in `foundOffset`. `low` may exceed 32 bits by a length. */
  private locate(high: number, low: number): MemoryRegion | undefined {
    const likely = this.regions[this.last];
    if (likely !== undefined) {
      const offset = likely.offsetOf(high, low);
      if (offset >= 0) {
        this.foundOffset = offset;
        return likely;
      }
    }
    for (let i = 0; i < this.regions.length; i++) {
      const region = this.regions[i];
      const offset = region?.offsetOf(high, low) ?? -1;
      if (region !== undefined && offset >= 0) {
        this.last = i;
        this.foundOffset = offset;
        return region;
      }
    }
    return undefined;
  }

  /** Unmaps everything. Rings on this table were stopped before. */
  unmap(disposal?: Disposal): void {
    for (const region of this.regions) region.unmap(disposal);
  }
}

/** Returned where a span that was checked is no longer covered; not an error number of Linux. */
const NOT_COVERED = -0x10000;

function overlap(added: RegionDescription, regions: readonly MemoryRegion[]): Fault | undefined {
  for (const { description } of regions) {
    for (const space of ['guestPhysAddr', 'userAddr'] as const) {
      if (
        added[space] < description[space] + description.size &&
        description[space] < added[space] + added.size
      ) {
        return new Fault(
          'request',
          'memory_region_overlap',
          `expected memory regions that do not overlap in ${space}, got 0x${added[space].toString(16)} twice`,
        );
      }
    }
  }
  return undefined;
}
