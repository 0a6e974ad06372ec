// The split virtqueue against a naive model: random chains, good and bad, are read alike, and change the same bytes.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { Fault } from '../../protocol/fault.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import { asFrontendVirtAddr, GuestMemory, type RegionPlace } from '../../shared-memory/guest-memory.js';
import { openRingMemory, ringBytes, type RingMemory } from '../../shared-memory/ring-memory.js';
import { Peek, type RingFeatures, SplitVirtqueue } from '../../shared-memory/split-virtqueue.js';
import { Desc, type DescriptorPlan, DriverRing } from '../support/driver-ring.js';
import { GuestRam } from '../support/guest-ram.js';
import { naiveChain } from '../support/naive-chain.js';
import type { Extent } from '../support/untouched.js';

const PAGE = 4096;
/** The ring, its guest-physical neighbour in another file, and a page above 4 GiB. */
const RING = { guestPhysAddr: 0x10000n, bytes: 4 * PAGE };
const NEIGHBOUR = { guestPhysAddr: 0x14000n, bytes: 2 * PAGE, userAddr: 0x1000_0000n };
const HIGH = { guestPhysAddr: 0x2_0000_0000n, bytes: PAGE, userAddr: 0x2000_0000n };
const TABLE = NEIGHBOUR.guestPhysAddr + 0x1800n;
const PLAIN: RingFeatures = { indirectDesc: true, eventIdx: false, notifyOnEmpty: false };

/** A queue over the memory of a synthetic guest, seen from both sides. */
class Bench {
  readonly ram: GuestRam;
  readonly ring: DriverRing;
  readonly queue: SplitVirtqueue;
  readonly memory: GuestMemory;

  constructor(size: number, sealed: boolean, start: { base?: number; features?: RingFeatures } = {}) {
    this.ram = new GuestRam([RING, NEIGHBOUR, HIGH].map((plan) => ({ ...plan, sealed })));
    this.ring = new DriverRing(this.ram, RING.guestPhysAddr, size, start.base ?? 0);
    const memory = GuestMemory.map(this.ram.regions, this.ram.passedFds(), 'guard');
    if (memory instanceof Fault) throw memory;
    this.memory = memory;
    const { base = 0, features = PLAIN } = start;
    this.queue = new SplitVirtqueue(size, this.openRing(), memory, { base, features });
  }

  /** The device's access to the ring. */
  openRing(): RingMemory {
    const { size, descAddress, availAddress, usedAddress } = this.ring;
    const places = {
      descTable: this.place(descAddress, ringBytes.descTable(size)),
      availRing: this.place(availAddress, ringBytes.availRing(size)),
      usedRing: this.place(usedAddress, ringBytes.usedRing(size)),
    };
    return openRingMemory(places, size);
  }

  private place(guestPhysAddr: bigint, length: number): RegionPlace {
    const place = this.memory.findFrontend(asFrontendVirtAddr(this.ram.userAddr(guestPhysAddr)), length);
    if (place === undefined) throw new Error('the ring is not covered');
    return place;
  }

  /** All of guest memory as one string of bytes. */
  bytes(): Buffer {
    return Buffer.concat(
      [RING, NEIGHBOUR, HIGH].map(({ guestPhysAddr, bytes }) => this.ram.view(guestPhysAddr, bytes)),
    );
  }

  close(): void {
    this.memory.unmap();
    this.ram.close();
  }
}

const regions = [RING, NEIGHBOUR, HIGH];

/** Byte by byte. */
function covers({ address, length }: Extent): boolean {
  for (let i = 0n; i < length; i++) {
    const at = address + i;
    if (
      !regions.some(({ guestPhysAddr, bytes }) => at >= guestPhysAddr && at < guestPhysAddr + BigInt(bytes))
    )
      return false;
  }
  return true;
}

/** Where a guest-physical byte lies in {@link Bench.bytes}. */
function indexOf(address: bigint): number {
  let before = 0;
  for (const { guestPhysAddr, bytes } of regions) {
    if (address >= guestPhysAddr && address < guestPhysAddr + BigInt(bytes)) {
      return before + Number(address - guestPhysAddr);
    }
    before += bytes;
  }
  throw new RangeError(address.toString(16));
}

/** Addresses near what matters: buffers, region edges, the table, nonsense. */
const address = fc.oneof(
  { weight: 6, arbitrary: fc.bigInt(NEIGHBOUR.guestPhysAddr, NEIGHBOUR.guestPhysAddr + 0x1700n) },
  { weight: 2, arbitrary: fc.bigInt(NEIGHBOUR.guestPhysAddr - 40n, NEIGHBOUR.guestPhysAddr + 40n) },
  { weight: 2, arbitrary: fc.bigInt(HIGH.guestPhysAddr - 40n, HIGH.guestPhysAddr + 0xfffn) },
  { weight: 1, arbitrary: fc.bigInt(0n, 2n ** 64n - 1n) },
  { weight: 1, arbitrary: fc.constantFrom(2n ** 64n - 1n, 2n ** 53n + 1n, 0n) },
);
const length = fc.oneof(
  { weight: 6, arbitrary: fc.nat(200) },
  { weight: 1, arbitrary: fc.constantFrom(0, 0xffff_ffff, 2048, 3000) },
);
const direct = (size: number) =>
  fc.record({
    address,
    length,
    flags: fc.oneof(
      { weight: 4, arbitrary: fc.constantFrom(Desc.Write, Desc.Write | Desc.Next) },
      { weight: 2, arbitrary: fc.constantFrom(0, Desc.Next) },
      { weight: 1, arbitrary: fc.nat(0xffff).map((flags) => flags & ~Desc.Indirect) },
    ),
    next: fc.oneof({ weight: 8, arbitrary: fc.nat(size - 1) }, { weight: 1, arbitrary: fc.nat(0xffff) }),
  });
const indirect = fc.record({
  address: fc.oneof({ weight: 6, arbitrary: fc.constant(TABLE) }, { weight: 1, arbitrary: address }),
  length: fc.oneof(
    { weight: 6, arbitrary: fc.nat(8).map((n) => 16 * n) },
    { weight: 1, arbitrary: fc.nat(200) },
  ),
  flags: fc.constantFrom(Desc.Indirect, Desc.Indirect | Desc.Write, Desc.Indirect | Desc.Next),
});
const guest = fc.constantFrom(1, 2, 8, 16).chain((size) =>
  fc.record({
    size: fc.constant(size),
    table: fc.array(fc.oneof({ weight: 5, arbitrary: direct(size) }, { weight: 1, arbitrary: indirect }), {
      minLength: size,
      maxLength: size,
    }),
    entries: fc.array(fc.oneof({ weight: 9, arbitrary: direct(8) }, { weight: 1, arbitrary: indirect }), {
      minLength: 8,
      maxLength: 8,
    }),
    head: fc.nat(size - 1),
    indirectDesc: fc.oneof(
      { weight: 5, arbitrary: fc.constant(true) },
      { weight: 1, arbitrary: fc.constant(false) },
    ),
    written: fc.nat(1000),
  }),
);

/** The bytes that the device gives, none of them 0. */
const pattern = new NativeMemory(65536);
for (let i = 0; i < 65536; i++) pattern.bytes[i] = 1 + (i % 251);

/** Reads a descriptor out of guest memory, naively. */
function entryAt(bytes: Buffer, at: bigint): DescriptorPlan {
  const field = Buffer.from(Array.from({ length: 16 }, (_, i) => bytes[indexOf(at + BigInt(i))] ?? 0));
  return {
    address: field.readBigUInt64LE(0),
    length: field.readUInt32LE(8),
    flags: field.readUInt16LE(12),
    next: field.readUInt16LE(14),
  };
}

const outcomes = { good: 0, malformed: 0 };

for (const sealed of [true, false]) {
  t.test(`virtio-v1.3 §2.7.5: 1,500 random chains, ${sealed ? 'direct' : 'guarded'} memory`, (t) => {
    fc.assert(
      fc.property(guest, ({ size, table, entries, head, indirectDesc, written }) => {
        const bench = new Bench(size, sealed, { features: { ...PLAIN, indirectDesc } });
        try {
          table.forEach((plan, i) => bench.ring.setDescriptor(i, plan));
          bench.ring.setIndirectTable(TABLE, entries);
          bench.ring.offer(head);
          bench.ring.publish();
          const before = bench.bytes();
          const parts = naiveChain(table, head, {
            indirectDesc,
            covers,
            entryAt: (at) => entryAt(before, at),
          });
          const room = bench.queue.peek();
          if (parts === undefined) {
            outcomes.malformed++;
            assert.equal(room, Peek.Malformed);
            assert.ok(before.equals(bench.bytes()), 'a malformed chain changes nothing');
            return;
          }
          outcomes.good++;
          const total = parts.reduce((sum, part) => sum + part.length, 0);
          assert.equal(room, Math.min(total, 65536));
          const split = Math.min(written, room) >> 1;
          const count = Math.min(written, room);
          assert.equal(bench.queue.fill(0, pattern, 0, split), 0);
          assert.equal(bench.queue.fill(split, pattern, split, count - split), 0);
          let at = 0;
          for (const part of parts) {
            for (let i = 0n; i < part.length && at < count; i++) {
              before[indexOf(part.address + i)] = pattern.bytes[at++] ?? 0;
            }
          }
          assert.ok(before.equals(bench.bytes()), 'exactly the bytes of the request change');
        } finally {
          bench.close();
        }
      }),
      { numRuns: 1500 },
    );
    t.comment(JSON.stringify(outcomes));
    t.ok(outcomes.good > 200 && outcomes.malformed > 200, 'both kinds occurred');
    t.end();
  });
}

t.test('virtio-v1.3 §2.7.6: indices wrap over three turns, at random depths', (t) => {
  const bench = new Bench(8, true, { base: 65530 });
  const { ring, queue } = bench;
  for (let i = 0; i < 8; i++) ring.setDescriptor(i, { address: TABLE, length: 16 + i, flags: Desc.Write });
  let wrong = 0;
  let random = 12345;
  for (let done = 0; done < 3 * 65536;) {
    random = (Math.imul(random, 1103515245) + 12345) >>> 0;
    const depth = 1 + ((random >>> 16) % 8);
    for (let i = 0; i < depth; i++) ring.offer((done + i) % 8);
    ring.publish();
    for (let i = 0; i < depth; i++) {
      const room = queue.peek();
      if (room !== 16 + ((done + i) % 8)) wrong++;
      queue.complete(room);
    }
    if (queue.hasWork() || queue.peek() !== Peek.Empty || ring.take() !== undefined) wrong++;
    queue.publish();
    for (let i = 0; i < depth; i++) {
      const used = ring.take();
      if (used?.id !== (done + i) % 8 || used.length !== 16 + used.id) wrong++;
    }
    done += depth;
    if (queue.base !== ((65530 + done) & 0xffff)) wrong++;
  }
  t.equal(wrong, 0);
  bench.close();
  t.end();
});

t.test('virtio-v1.3 §2.7.6: avail.idx up to the size ahead is served, anything else is corrupt', (t) => {
  for (const base of [0, 65533]) {
    const bench = new Bench(8, true, { base });
    const ringMemory = bench.openRing();
    bench.ring.setDescriptor(0, { address: TABLE, length: 1, flags: Desc.Write });
    const wrong: number[] = [];
    for (let ahead = 0; ahead < 65536; ahead++) {
      const queue = new SplitVirtqueue(8, ringMemory, bench.memory, { base, features: PLAIN });
      Atomics.store(bench.ring.avail, 1, (base + ahead) & 0xffff);
      const expected = ahead === 0 ? Peek.Empty : ahead <= 8 ? 1 : Peek.Corrupt;
      if (queue.peek() !== expected) wrong.push(ahead);
    }
    t.same(wrong.slice(0, 10), [], `from ${base} on`);
    bench.close();
  }
  t.end();
});

/** Source: virtio-v1.3 §2.7.7.2, `vring_need_event`, word for word, in 16 bits. */
function needEvent(usedEvent: number, newIndex: number, old: number): boolean {
  return ((newIndex - usedEvent - 1) & 0xffff) < ((newIndex - old) & 0xffff);
}

t.test('virtio-v1.3 §2.7.7.2: with EVENT_IDX a signal exactly as vring_need_event says', (t) => {
  const u16 = fc.nat(0xffff);
  fc.assert(
    fc.property(
      u16,
      fc.array(
        fc.record({
          count: fc.nat(8),
          event: u16,
          near: fc.integer({ min: -9, max: 9 }),
          useNear: fc.boolean(),
        }),
        { maxLength: 12 },
      ),
      (base, steps) => {
        const bench = new Bench(8, true, { base, features: { ...PLAIN, eventIdx: true } });
        try {
          const { ring, queue } = bench;
          ring.setDescriptor(0, { address: TABLE, length: 1, flags: Desc.Write });
          assert.equal(queue.needsSignal(), true, 'one signal is owed at the start');
          let old = base;
          for (const { count, event, near, useNear } of steps) {
            const used = useNear ? (old + near) & 0xffff : event;
            ring.setUsedEvent(used);
            for (let i = 0; i < count; i++) ring.offer(0);
            ring.publish();
            for (let i = 0; i < count; i++) {
              queue.peek();
              queue.complete(1);
            }
            queue.publish();
            const now = (old + count) & 0xffff;
            assert.equal(
              queue.needsSignal(),
              needEvent(used, now, old),
              `${old} -> ${now}, used_event ${used}`,
            );
            assert.equal(queue.needsSignal(), false, 'never twice for the same requests');
            old = now;
          }
        } finally {
          bench.close();
        }
      },
    ),
    { numRuns: 300 },
  );
  t.end();
});

t.test(
  'virtio-v1.3 §2.7.10.1: asking for kicks tells where the device stands, and sees work that came meanwhile',
  (t) => {
    for (const eventIdx of [false, true]) {
      const bench = new Bench(8, true, { base: 65535, features: { ...PLAIN, eventIdx } });
      const { ring, queue } = bench;
      queue.suppressKicks();
      ring.request(0, TABLE, 1);
      t.equal(ring.wantsKick(eventIdx), false, 'none is wanted while the ring is polled');
      t.equal(queue.enableKicks(), true, 'the request is seen');
      queue.peek();
      queue.complete(1);
      queue.publish();
      t.equal(queue.enableKicks(), false);
      ring.request(1, TABLE, 1);
      t.equal(ring.wantsKick(eventIdx), true, 'the next request kicks');
      bench.close();
    }
    t.end();
  },
);

/** Each [base of the front-end, used.idx in memory, where the queue goes on]: design §6 rule 2. */
const STARTS = [
  [0, 0, 0],
  [5, 5, 5],
  [8, 0, 0],
  [3, 65535, 65535],
  [9, 0, 9],
  [0, 1, 1],
  [65535, 7, 7],
  [0, 9, 0],
] as const;

t.test('a restart goes on from used.idx where the base is off by at most the queue size, either way', (t) => {
  for (const [base, used, expected] of STARTS) {
    const bench = new Bench(8, true);
    bench.ring.used16[1] = used;
    const queue = new SplitVirtqueue(8, bench.openRing(), bench.memory, { base, features: PLAIN });
    t.equal(queue.base, expected, `base ${base}, used.idx ${used}`);
    bench.close();
  }
  t.end();
});

t.test('guarded memory that vanishes: the queue says so, whatever it was doing', (t) => {
  for (const action of ['peek', 'fill', 'publish', 'enableKicks'] as const) {
    const bench = new Bench(8, false);
    bench.ring.request(0, NEIGHBOUR.guestPhysAddr, 64);
    if (action !== 'peek') t.equal(bench.queue.peek(), 64);
    if (action === 'publish' || action === 'enableKicks') bench.queue.complete(0);
    for (const region of [0, 1]) bench.ram.truncate(region, 0);
    if (action === 'peek') t.equal(bench.queue.peek(), Peek.Vanished);
    else if (action === 'fill') t.ok(bench.queue.fill(0, pattern, 0, 64) < 0);
    else bench.queue[action]();
    if (action !== 'fill') t.ok(bench.queue.hasVanished());
    bench.close();
  }
  t.end();
});
