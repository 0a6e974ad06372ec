// A second, naive reading of descriptor chains, to compare the daemon's with: lists and bigints, no regard for speed.
// Source: virtio-v1.3 §2.7.4 and §2.7.5; where those leave a choice, the choice of split-virtqueue.ts.
import { Desc, type DescriptorPlan } from './driver-ring.js';
import type { Extent } from './untouched.js';

const MAX_TABLE_ENTRIES = 1024;

/** What the naive reading needs to know of a guest. */
export interface NaiveGuest {
  readonly indirectDesc: boolean;
  readonly covers: (extent: Extent) => boolean;
  /** The entry at an address, which is covered. */
  readonly entryAt: (address: bigint) => DescriptorPlan;
}

/** Follows `next` from `head` on; undefined when it leaves the list or comes back. */
function follow(list: readonly DescriptorPlan[], head: number): DescriptorPlan[] | undefined {
  const visited = new Set<number>();
  const parts: DescriptorPlan[] = [];
  for (let index = head; ;) {
    const part = list[index];
    if (part === undefined || visited.has(index)) return undefined;
    visited.add(index);
    parts.push(part);
    const flags = part.flags ?? 0;
    if ((flags & Desc.Next) === 0 || (flags & Desc.Indirect) !== 0) return parts;
    index = part.next ?? 0;
  }
}

function isIndirect(part: DescriptorPlan): boolean {
  return ((part.flags ?? 0) & Desc.Indirect) !== 0;
}

/** The device-writable parts of a well-formed chain, none of them empty; undefined for a malformed one. */
export function naiveChain(
  table: readonly DescriptorPlan[],
  head: number,
  guest: NaiveGuest,
): Extent[] | undefined {
  let parts = follow(table, head);
  const last = parts?.at(-1);
  if (parts === undefined || last === undefined) return undefined;
  if (isIndirect(last)) {
    const count = last.length / 16;
    const sound = ((last.flags ?? 0) & Desc.Next) === 0 && Number.isInteger(count) && count >= 1;
    if (!guest.indirectDesc || !sound || count > MAX_TABLE_ENTRIES || !guest.covers(last)) return undefined;
    const entries = Array.from({ length: count }, (_, i) => guest.entryAt(last.address + BigInt(16 * i)));
    const inner = follow(entries, 0);
    if (inner === undefined || inner.some(isIndirect)) return undefined;
    parts = [...parts.slice(0, -1), ...inner];
  }
  const isWritable = (part: DescriptorPlan) => ((part.flags ?? 0) & Desc.Write) !== 0;
  const writable = parts.filter((part) => isWritable(part) && part.length > 0);
  const first = parts.findIndex((part) => isWritable(part) && part.length > 0);
  if (first < 0 || parts.slice(first).some((part) => !isWritable(part))) return undefined;
  return writable.every((part) => guest.covers(part)) ? writable : undefined;
}
