// What a device has changed in a synthetic guest's memory, byte by byte.
import type { GuestRam } from './guest-ram.js';

/** A part of guest-physical memory. */
export interface Extent {
  readonly address: bigint;
  readonly length: number;
}

/** A copy of one region's bytes, to be compared later. */
export class MemorySnapshot {
  private readonly base: bigint;
  private readonly now: Buffer;
  private readonly before: Buffer;

  /** Takes the copy; `region` is an index into the machine's regions. */
  constructor(ram: GuestRam, region = 0) {
    const description = ram.regions[region];
    if (description === undefined) throw new RangeError(`no region ${region}`);
    this.base = description.guestPhysAddr;
    this.now = ram.view(this.base, Number(description.size));
    this.before = Buffer.from(this.now);
  }

  /** Address of the first byte outside of `allowed` that is not as it was; undefined when there is none. */
  firstChange(allowed: readonly Extent[]): string | undefined {
    // One moment's memory: the device may still write where it is allowed to.
    const now = Buffer.from(this.now);
    const expected = Buffer.from(this.before);
    for (const { address, length } of allowed) {
      const start = Number(address - this.base);
      if (start < 0 || start >= expected.length) continue;
      now.copy(expected, start, start, Math.min(start + length, expected.length));
    }
    if (expected.equals(now)) return undefined;
    const at = expected.findIndex((byte, i) => byte !== now[i]);
    return `0x${(this.base + BigInt(at)).toString(16)}`;
  }
}

/** The first `length` bytes of a list of extents. */
export function prefixOf(extents: readonly Extent[], length: number): Extent[] {
  let left = length;
  return extents.map((extent) => {
    const taken = Math.min(left, extent.length);
    left -= taken;
    return { address: extent.address, length: taken };
  });
}
