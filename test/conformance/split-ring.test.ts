// virtio-v1.3 §2.7.4 to §2.7.8, split virtqueues: what a guest may put into a chain of descriptors, and what becomes of
// it. Rows are those of the promises in ARCHITECTURE.md, "Bad input" (85 to 105).
//
// Leaves out: faults of the ring itself (split-ring-corrupt), signals (split-ring-signals), limits and turns
// (split-ring-service), descriptors that change meanwhile (split-ring-race), indirect tables (indirect-tables).
import t from 'tap';
import { maskOf, VirtioFeature } from '../../protocol/features.js';
import { type ChainCase, chained, readable, runChainCase, writable } from '../support/chain-cases.js';
import { Desc } from '../support/driver-ring.js';
import { DEFAULT_FEATURES } from '../support/frontend.js';
import { startRngDaemon } from '../support/rng-daemon.js';
import { DATA_BASE, RING_BASE, VirtualMachine } from '../support/virtual-machine.js';

const SIZE = 16;
const BYTES = 1 << 20;
const END = RING_BASE + BigInt(BYTES);
const A = DATA_BASE;
const B = DATA_BASE + 0x1003n;
const C = DATA_BASE + 0x2000n;
const U64_MAX = 2n ** 64n - 1n;
const WN = Desc.Write | Desc.Next;
const UNKNOWN_FLAGS = 0xfff8;

/** `count` writable parts of `each` bytes, one behind the other. */
function parts(count: number, each: number) {
  return Array.from({ length: count }, (_, i) => writable(C + BigInt(i * each), each));
}

const CASES: readonly ChainCase[] = [
  {
    title: 'one writable buffer, virtio-v1.3 §5.4.6.2',
    chain: [writable(A, 64)],
    used: 64,
    writable: [{ address: A, length: 64 }],
  },
  ...[1, 2, 3, 5, 63, 4095].map((length) => ({
    title: `a buffer of ${length} bytes at an odd address, virtio-v1.3 §2.7.4`,
    chain: [writable(B, length)],
    used: length,
    writable: [{ address: B, length }],
  })),
  {
    title: 'a chain of three unlike buffers, virtio-v1.3 §2.7.4',
    chain: chained([writable(A, 7), writable(B, 50), writable(C, 1)]),
    used: 58,
    writable: [
      { address: A, length: 7 },
      { address: B, length: 50 },
      { address: C, length: 1 },
    ],
  },
  ...(
    [
      ['next is the descriptor itself', [writable(A, 64, WN)]],
      ['a cycle of two', [writable(A, 64, WN), writable(C, 64, WN)]],
      ['a long cycle', parts(SIZE - 1, 16).map((part) => ({ ...part, flags: WN }))],
      [
        'a cycle of readable parts',
        [readable(A, 64), readable(C, 64)].map((p) => ({ ...p, flags: Desc.Next })),
      ],
    ] as const
  ).map(([what, chain]) => ({
    title: `row 88, virtio-v1.3 §2.7.5.2: ${what}`,
    chain: chain.map((part, i) => ({ ...part, next: (i + 1) % chain.length })),
    used: 0,
  })),
  ...[SIZE, SIZE + 1, 0x8000, 0xffff].map((next) => ({
    title: `row 89, virtio-v1.3 §2.7.5: next is ${next} in a ring of ${SIZE}`,
    chain: [{ ...writable(A, 64, WN), next }],
    used: 0,
  })),
  {
    title: `row 91, virtio-v1.3 §2.7.5.2: a chain of exactly ${SIZE}, the size of the ring`,
    chain: chained(parts(SIZE, 32)),
    used: SIZE * 32,
    writable: parts(SIZE, 32),
  },
  {
    title: `row 91, virtio-v1.3 §2.7.5.2: a chain of ${SIZE + 1}, one more than the ring has`,
    chain: parts(SIZE - 1, 32).map((part, i) => ({ ...part, flags: WN, next: i === SIZE - 2 ? 0 : i + 1 })),
    used: 0,
  },
  { title: 'row 92, virtio-v1.3 §2.7.5: length 0 alone', chain: [writable(A, 0)], used: 0 },
  {
    title: 'row 92, virtio-v1.3 §2.7.5: only lengths of 0',
    chain: chained([writable(A, 0), writable(B, 0), writable(C, 0)]),
    used: 0,
  },
  {
    title: 'row 92, virtio-v1.3 §2.7.5: lengths of 0 among others are passed over',
    chain: chained([writable(A, 0), writable(A, 30), writable(U64_MAX, 0), writable(C, 34)]),
    used: 64,
    writable: [
      { address: A, length: 30 },
      { address: C, length: 34 },
    ],
  },
  ...(
    [
      ['address + length wraps 2^64', U64_MAX - 63n, 128],
      ['address + length is 2^64', U64_MAX - 63n, 64],
      ['an address of 0', 0n, 64],
      ['an address below the guest memory', RING_BASE - 64n, 64],
      ['the first byte below the guest memory', RING_BASE - 1n, 64],
      ['an address behind the guest memory', END, 64],
      ['the last byte behind the guest memory', END - 63n, 64],
      ['an address that is right in its low 32 bits only', (1n << 32n) + A, 64],
      ['an address that is right in its low 53 bits only', (1n << 53n) + A, 64],
      ["the front-end's address of a good buffer", 0x7f00_0000_0000n + A, 64],
      ['a length that leaves the guest memory', A, 0xffff_ffff],
    ] as const
  ).flatMap(([what, address, length]) => [
    {
      title: `row 93, virtio-v1.3 §2.7.5: ${what}`,
      chain: [writable(address, length)],
      used: 0,
    },
    {
      title: `row 93, virtio-v1.3 §2.7.5: ${what}, behind a good part that stays as it was`,
      chain: chained([writable(C, 64), writable(address, length)]),
      used: 0,
    },
  ]),
  {
    title: 'row 93, virtio-v1.3 §2.7.5: the last byte is the last of guest memory',
    chain: [writable(END - 64n, 64)],
    used: 64,
    writable: [{ address: END - 64n, length: 64 }],
  },
  {
    title: 'row 97, virtio-v1.3 §5.4.6.1: one readable buffer, which is never written',
    chain: [readable(A, 64)],
    used: 0,
  },
  {
    title: 'row 97, virtio-v1.3 §2.7.4.2: readable before writable, the readable part is passed over',
    chain: chained([readable(A, 64), writable(C, 64)]),
    used: 64,
    writable: [{ address: C, length: 64 }],
  },
  {
    title: 'row 97, virtio-v1.3 §2.7.4.2: a readable part is never looked at, wherever it points',
    chain: chained([readable(U64_MAX, 64), writable(C, 64)]),
    used: 64,
    writable: [{ address: C, length: 64 }],
  },
  {
    title: 'row 97, virtio-v1.3 §2.7.4.2: readable after writable',
    chain: chained([writable(C, 64), readable(A, 64)]),
    used: 0,
  },
  {
    title: 'row 97, virtio-v1.3 §2.7.4.2: readable between writable parts',
    chain: chained([writable(C, 64), readable(A, 64), writable(B, 64)]),
    used: 0,
  },
  {
    // split-virtqueue.ts: "Other bits are reserved and ignored."
    title: 'row 99, virtio-v1.3 §2.7.5: unknown flag bits are ignored',
    chain: chained([
      writable(A, 32, Desc.Write | UNKNOWN_FLAGS),
      writable(C, 32, Desc.Write | UNKNOWN_FLAGS),
    ]),
    used: 64,
    writable: [
      { address: A, length: 32 },
      { address: C, length: 32 },
    ],
  },
];

const MODES = {
  'no ring features': 0n,
  EVENT_IDX: maskOf(VirtioFeature.EVENT_IDX),
  NOTIFY_ON_EMPTY: maskOf(VirtioFeature.NOTIFY_ON_EMPTY),
  'EVENT_IDX, NOTIFY_ON_EMPTY and INDIRECT_DESC': maskOf(
    VirtioFeature.EVENT_IDX,
    VirtioFeature.NOTIFY_ON_EMPTY,
    VirtioFeature.INDIRECT_DESC,
  ),
} as const;
const AVAIL_F_NO_INTERRUPT = 1;

const { path, daemon } = await startRngDaemon(t);

for (const sealed of [true, false]) {
  const memory = sealed ? 'sealed memory' : 'guarded memory';
  for (const [mode, features] of Object.entries(MODES)) {
    for (const flags of [0, AVAIL_F_NO_INTERRUPT]) {
      const quiet = flags === 0 ? '' : ', NO_INTERRUPT';
      await t.test(`${memory}, ${mode}${quiet}`, async (t) => {
        const vm = VirtualMachine.start(path, {
          size: SIZE,
          sealed,
          bytes: BYTES,
          features: DEFAULT_FEATURES | features,
        });
        t.teardown(() => vm.close());
        vm.ring.setAvailFlags(flags);
        for (const given of CASES) {
          await t.test(given.title, (t) => {
            runChainCase(t, vm, given);
            t.end();
          });
        }
        t.equal(vm.frontend.waitErr(0), 0, 'err was never signalled');
        t.ok(vm.frontend.answers(), 'the connection lives');
      });
    }
  }
}

/**
 * Behind the descriptor table lies the available ring, whose first 16 bytes are here those of a good descriptor: flags and idx are
 * its address 0x40000, entries 2 and 3 its length, entry 4 its flags.
 */
await t.test('row 89: next is the size of the ring, and a good descriptor seems to lie there', (t) => {
  for (const sealed of [true, false]) {
    const vm = VirtualMachine.start(path, { size: SIZE, sealed, index: 3 });
    vm.ring.setDescriptor(0, { address: 0n, length: 0, flags: WN, next: SIZE });
    for (const [entry, value] of [0, 0, 64, 0, Desc.Write].entries()) vm.ring.avail[2 + entry] = value;
    const buffer = vm.ram.view(DATA_BASE, 64).fill(0x5a);
    vm.ring.offer(0);
    vm.ring.publish();
    vm.frontend.kickRing();
    t.same(vm.frontend.waitUsed(vm.ring, 1), [{ id: 0, length: 0 }]);
    t.same(buffer, Buffer.alloc(64, 0x5a));
    vm.close();
  }
  t.end();
});

t.ok(daemon.isRunning);
