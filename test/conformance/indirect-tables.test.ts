// virtio-v1.3 §2.7.5.3, indirect descriptor tables. Rows 116 to 125 of ARCHITECTURE.md, "Bad input".
//
// Leaves out: what holds for every descriptor, wherever it stands (split-ring).
import t from 'tap';
import { maskOf, VirtioFeature } from '../../protocol/features.js';
import { type ChainCase, chained, readable, runChainCase, writable } from '../support/chain-cases.js';
import { Desc, type DescriptorPlan } from '../support/driver-ring.js';
import { DEFAULT_FEATURES } from '../support/frontend.js';
import { startRngDaemon } from '../support/rng-daemon.js';
import { MemorySnapshot } from '../support/untouched.js';
import { DATA_BASE, RING_BASE, VirtualMachine } from '../support/virtual-machine.js';

const SIZE = 16;
/** Two regions that are neighbours in guest-physical memory only; the second begins at SPLIT. */
const SPLIT = 0x8_0000n;
const END = 0x10_0000n;
const regions = (sealed: boolean) => [
  { guestPhysAddr: RING_BASE, bytes: Number(SPLIT - RING_BASE), sealed },
  { guestPhysAddr: SPLIT, bytes: Number(END - SPLIT), userAddr: 0x5500_0000_0000n, sealed },
];

const A = DATA_BASE;
const B = DATA_BASE + 0x1001n;
const TABLE = DATA_BASE + 0x4000n;
const U64_MAX = 2n ** 64n - 1n;
const WN = Desc.Write | Desc.Next;

/** The descriptor that points to a table. */
function indirect(address: bigint, length: number, flags = 0): DescriptorPlan {
  return { address, length, flags: Desc.Indirect | flags };
}

/** A request of one indirect table with `entries`, and what becomes of it. */
function table(
  title: string,
  entries: readonly DescriptorPlan[],
  expected: Pick<ChainCase, 'used' | 'writable'>,
  at: { readonly address?: bigint; readonly flags?: number } = {},
): ChainCase {
  const address = at.address ?? TABLE;
  return {
    title,
    chain: [indirect(address, entries.length * 16, at.flags)],
    table: { address, entries },
    ...expected,
  };
}

const TWO = chained([writable(A, 30), writable(B, 34)]);
const TWO_SERVED = {
  used: 64,
  writable: [
    { address: A, length: 30 },
    { address: B, length: 34 },
  ],
};
const MALFORMED = { used: 0 };

/** Entries of one byte each, side by side. */
function singleBytes(count: number): DescriptorPlan[] {
  return chained(Array.from({ length: count }, (_, i) => writable(A + BigInt(i), 1)));
}

const CASES: readonly ChainCase[] = [
  table('§2.7.5.3: a table of two entries', TWO, TWO_SERVED),
  table('§2.7.5.3: a table of one entry', [writable(A, 64)], {
    used: 64,
    writable: [{ address: A, length: 64 }],
  }),
  table(
    '§2.7.5.3: the last entry of the chain is not the last of the table',
    [{ ...writable(A, 30, WN), next: 2 }, writable(B, 34), { ...writable(U64_MAX, 0, WN), next: 1 }],
    TWO_SERVED,
  ),
  table(
    '§2.7.5.3: entries linked out of order',
    [{ ...writable(A, 30, WN), next: 2 }, writable(A, 4096), writable(B, 34)],
    TWO_SERVED,
  ),
  table(
    '§2.7.5.3: what stands behind the last entry is not looked at',
    [writable(A, 64), writable(U64_MAX, 64)],
    {
      used: 64,
      writable: [{ address: A, length: 64 }],
    },
  ),
  table('§2.7.5.3.1: a table longer than the ring, which QEMU allows (64 entries)', singleBytes(64), {
    used: 64,
    writable: [{ address: A, length: 64 }],
  }),
  ...[0, 8, 15, 17, 31].map((length) => ({
    title: `row 117, §2.7.5.3.2: a table of ${length} bytes`,
    chain: [indirect(TABLE, length)],
    table: { address: TABLE, entries: TWO },
    ...MALFORMED,
  })),
  {
    title: 'row 117, §2.7.5.3.2: a table of 0xfffffff0 bytes',
    chain: [indirect(TABLE, 0xffff_fff0)],
    ...MALFORMED,
  },
  ...(
    [
      ['outside of guest memory', END],
      ['whose last byte is outside', END - 31n],
      ['below guest memory', RING_BASE - 16n],
      ['that wraps 2^64', U64_MAX - 15n],
    ] as const
  ).map(([where, address]) => ({
    title: `row 117, §2.7.5.3: a table ${where}`,
    chain: [indirect(address, 32)],
    ...MALFORMED,
  })),
  table('row 119, §2.7.5.3.1: a table inside a table', [indirect(TABLE, 32)], MALFORMED),
  table(
    'row 119, §2.7.5.3.1: a table inside a table, behind a good entry',
    chained([writable(A, 64), indirect(TABLE, 32)]),
    MALFORMED,
  ),
  table('row 120, §2.7.5.3.1: INDIRECT and NEXT together', TWO, MALFORMED, { flags: Desc.Next }),
  {
    title: 'row 120, §2.7.5.3.1: a direct chain that ends in a table is served',
    chain: chained([writable(DATA_BASE + 0x3000n, 16), indirect(TABLE, 32)]),
    table: { address: TABLE, entries: TWO },
    used: 80,
    writable: [{ address: DATA_BASE + 0x3000n, length: 16 }, ...TWO_SERVED.writable],
  },
  {
    title: 'row 120, §2.7.4.2: readable parts, then a table of writable ones',
    chain: chained([readable(A, 16), indirect(TABLE, 32)]),
    table: { address: TABLE, entries: TWO },
    ...TWO_SERVED,
  },
  table('row 121, §2.7.5.3.2: the WRITE flag of the table descriptor is ignored', TWO, TWO_SERVED, {
    flags: Desc.Write,
  }),
  table('row 123, §2.7.5.3: a table that spans two regions', TWO, TWO_SERVED, { address: SPLIT - 16n }),
  table('row 123, §2.7.5.3: an entry that spans two regions', TWO, TWO_SERVED, { address: SPLIT - 24n }),
  table('row 123, §2.7.5: a buffer that spans two regions', [writable(SPLIT - 30n, 64)], {
    used: 64,
    writable: [{ address: SPLIT - 30n, length: 64 }],
  }),
  ...[1n, 2n, 7n, 8n, 15n].map((by) =>
    table(`row 124, §2.7.5.3: a table ${by} bytes off its alignment`, TWO, TWO_SERVED, {
      address: TABLE + by,
    }),
  ),
  table(
    'row 88, §2.7.5.3.1: an entry whose next is itself',
    [{ ...writable(A, 64, WN), next: 0 }],
    MALFORMED,
  ),
  table(
    'row 88, §2.7.5.3.1: a cycle of two entries',
    [
      { ...writable(A, 64, WN), next: 1 },
      { ...writable(B, 64, WN), next: 0 },
    ],
    MALFORMED,
  ),
  {
    title: 'row 89, §2.7.5.3.1: next is the size of the table, and a good entry lies there',
    chain: [indirect(TABLE, 16)],
    table: { address: TABLE, entries: TWO },
    ...MALFORMED,
  },
  table('row 92: entries of length 0 only', chained([writable(A, 0), writable(B, 0)]), MALFORMED),
  table(
    'row 93: an entry outside of guest memory',
    chained([writable(A, 64), writable(END - 63n, 64)]),
    MALFORMED,
  ),
  table(
    'row 97, §2.7.4.2: a readable entry behind a writable one',
    chained([writable(A, 64), readable(B, 64)]),
    MALFORMED,
  ),
];

/**
 * split-virtqueue.ts: 1,024 descriptors in a chain, and 128 where each one costs a system call; the one that points to the table
 * is not counted.
 */
const LONGEST_TABLE = { sealed: 1024, guarded: 128 } as const;

function longTables(most: number): ChainCase[] {
  return [
    table(`§2.7.5.3.1: a table of ${most} entries, the most that is walked`, singleBytes(most), {
      used: most,
      writable: [{ address: A, length: most }],
    }),
    table(`§2.7.5.3.1: a table of ${most + 1} entries`, singleBytes(most + 1), MALFORMED),
    {
      title: `§2.7.5.3.1: a table of ${most} entries behind a direct descriptor`,
      chain: chained([writable(B, 1), indirect(TABLE, 16 * most)]),
      table: { address: TABLE, entries: singleBytes(most) },
      ...MALFORMED,
    },
  ];
}

/** A case may lie across two regions, which one view of the test cannot: then only its lengths are looked at. */
function withoutSplitBuffer(given: ChainCase): ChainCase {
  const split = (given.writable ?? []).some(
    ({ address, length }) => address < SPLIT && address + BigInt(length) > SPLIT,
  );
  if (!split) return given;
  const first = Number(SPLIT - (given.writable?.[0]?.address ?? 0n));
  return {
    ...given,
    writable: [
      { address: SPLIT - BigInt(first), length: first },
      { address: SPLIT, length: given.used - first },
    ],
  };
}

const INDIRECT = DEFAULT_FEATURES | maskOf(VirtioFeature.INDIRECT_DESC);
const EVENT_IDX = maskOf(VirtioFeature.EVENT_IDX);

const { path, daemon } = await startRngDaemon(t);

for (const sealed of [true, false]) {
  for (const features of [INDIRECT, INDIRECT | EVENT_IDX]) {
    const mode = features === INDIRECT ? '' : ', EVENT_IDX';
    await t.test(`virtio-v1.3 §2.7.5.3, ${sealed ? 'sealed' : 'guarded'} memory${mode}`, async (t) => {
      const vm = VirtualMachine.start(path, { size: SIZE, regions: regions(sealed), features });
      t.teardown(() => vm.close());
      const most = sealed ? LONGEST_TABLE.sealed : LONGEST_TABLE.guarded;
      for (const given of [...CASES, ...longTables(most)]) {
        await t.test(given.title, (t) => {
          runChainCase(t, vm, withoutSplitBuffer(given));
          t.end();
        });
      }
      t.equal(vm.frontend.waitErr(0), 0);
    });
  }

  await t.test('row 116, §2.7.5.3.1: INDIRECT that was not negotiated', (t) => {
    const vm = VirtualMachine.start(path, { size: SIZE, regions: regions(sealed) });
    runChainCase(t, vm, table('', TWO, MALFORMED));
    vm.close();
    t.end();
  });

  await t.test("row 125: the table's memory is the used ring, 50 times", (t) => {
    const vm = VirtualMachine.start(path, { size: SIZE, regions: regions(sealed), features: INDIRECT });
    const { ring, frontend } = vm;
    const snapshot = new MemorySnapshot(vm.ram);
    for (let i = 0; i < 50; i++) {
      // Used elements read as descriptors: whatever they say, they are checked like any other.
      ring.setDescriptor(0, indirect(ring.usedAddress + 4n, 8 * SIZE));
      ring.setDescriptor(1, { address: A, length: 64, flags: Desc.Write });
      ring.offer(0);
      ring.offer(1);
      ring.publish();
      frontend.kickRing();
      const [first, second] = frontend.waitUsed(ring, 2);
      if (first?.id !== 0 || second?.length !== 64) t.fail(`round ${i}: ${JSON.stringify([first, second])}`);
    }
    const allowed = [
      { address: RING_BASE, length: Number(ring.end - RING_BASE) },
      { address: A, length: 64 },
    ];
    t.equal(snapshot.firstChange(allowed), undefined);
    t.ok(frontend.answers());
    vm.close();
    t.end();
  });
}

t.ok(daemon.isRunning);
