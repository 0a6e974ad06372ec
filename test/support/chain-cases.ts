// Runs one chain after the other, well-formed and malformed, over a machine that is set up on a real daemon.
import type { Test } from 'tap';
import { Desc, type DescriptorPlan } from './driver-ring.js';
import { type Extent, MemorySnapshot, prefixOf } from './untouched.js';
import { DATA_BASE, type VirtualMachine } from './virtual-machine.js';

/** A request, and what must become of it. */
export interface ChainCase {
  readonly title: string;
  /** Stored from descriptor 0 on, which is the head. */
  readonly chain: readonly DescriptorPlan[];
  /** An indirect table, and where it lies; it may cross regions. */
  readonly table?: { readonly address: bigint; readonly entries: readonly DescriptorPlan[] };
  /** used.len: 0 for a chain that is malformed. */
  readonly used: number;
  /** Its device-writable bytes in order; only the first `used` of them may change, and they do. */
  readonly writable?: readonly Extent[];
}

/** The buffer of the well-formed request that follows each case in the same batch. */
const NEXT_BUFFER: Extent = { address: DATA_BASE + 0x8000n, length: 64 };
const FILLER = 0x5a;

/** A writable part. `next` and a flag for it come with {@link chained}. */
export function writable(address: bigint, length: number, flags: number = Desc.Write): DescriptorPlan {
  return { address, length, flags };
}

/** A readable part. */
export function readable(address: bigint, length: number): DescriptorPlan {
  return { address, length, flags: 0 };
}

/** Links parts in the order of their places, from `first` on. */
export function chained(parts: readonly DescriptorPlan[], first = 0): DescriptorPlan[] {
  return parts.map((part, i) =>
    i === parts.length - 1
      ? part
      : { ...part, flags: (part.flags ?? 0) | Desc.Next, next: part.next ?? first + i + 1 },
  );
}

/** Serves one case and the request behind it, and compares all of guest memory. */
export function runChainCase(t: Test, vm: VirtualMachine, given: ChainCase): void {
  const { ring, frontend, ram } = vm;
  const last = ring.size - 1;
  for (let i = 0; i < ring.size; i++) ring.setDescriptor(i, { address: 0n, length: 0 });
  for (const { address, length } of given.writable ?? []) ram.view(address, length).fill(FILLER);
  vm.describe(given.chain);
  if (given.table !== undefined) ring.setIndirectTable(given.table.address, given.table.entries);
  const next = given.chain[last];
  if (next === undefined) ring.setDescriptor(last, { ...NEXT_BUFFER, flags: Desc.Write });
  const nextLength = next?.length ?? NEXT_BUFFER.length;
  const nextExtent = next === undefined ? NEXT_BUFFER : { address: next.address, length: next.length };
  ring.offer(0);
  ring.offer(last);
  ring.setUsedEvent((ring.usedIndex + 1) & 0xffff);

  const snapshots = ram.regions.map((_, region) => new MemorySnapshot(ram, region));
  ring.publish();
  frontend.kickRing();
  const completed = frontend.waitUsed(ring, 2);
  // The device asks for kicks again once it has signalled: memory is compared while it stands still.
  vm.settle();

  t.same(
    completed,
    [
      { id: 0, length: given.used },
      { id: last, length: nextLength },
    ],
    'used elements',
  );
  const filled = prefixOf(given.writable ?? [], given.used);
  const allowed = [
    { address: ring.availAddress + 2n, length: 2 },
    { address: ring.usedAddress, length: Number(ring.end - ring.usedAddress) },
    nextExtent,
    ...filled,
  ];
  for (const snapshot of snapshots) t.equal(snapshot.firstChange(allowed), undefined, 'nothing else changed');
  // Shorter ones may be given the filler's bytes by chance.
  const untouched = filled.filter(
    ({ address, length }) => length >= 16 && ram.view(address, length).every((byte) => byte === FILLER),
  );
  t.same(untouched, [], 'every buffer was filled');
}
