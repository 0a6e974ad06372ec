// The memory table against a naive oracle: random layouts over the whole of 64 bits, spans that cross regions, both kinds
// of access; and tables that are refused.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { Fault } from '../../protocol/fault.js';
import { closeFd } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import { asFrontendVirtAddr, GuestMemory } from '../../shared-memory/guest-memory.js';
import { GuestRam, type RegionPlan } from '../support/guest-ram.js';

const PAGE = 4096;
const U64 = 2n ** 64n;

/** A region, relative to the end of the one before it. */
const relative = fc.record({
  gap: fc.oneof({ weight: 3, arbitrary: fc.constant(0n) }, { weight: 1, arbitrary: fc.bigInt(1n, 9000n) }),
  bytes: fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 9000 })),
  offsetPages: fc.nat(2),
  sealed: fc.boolean(),
});
const START = [
  0n,
  0x10000n,
  2n ** 32n - 5000n,
  2n ** 53n - 3n,
  2n ** 53n + 7n,
  2n ** 63n,
  U64 - 60_000n,
] as const;

/** Regions in guest-physical order, with front-end addresses in the opposite order and far away. */
const layout = fc
  .record({
    start: fc.constantFrom(...START),
    parts: fc.array(relative, { minLength: 1, maxLength: 6 }),
    shuffled: fc.boolean(),
  })
  .map(({ start, parts, shuffled }) => {
    let at = start;
    const plans = parts.map((part, i): RegionPlan => {
      const guestPhysAddr = at + part.gap;
      at = guestPhysAddr + BigInt(part.bytes);
      const userAddr = 0x7000_0000_0000n - BigInt(i) * 0x10_0000n;
      const mmapOffset = part.offsetPages * PAGE;
      return { guestPhysAddr, bytes: part.bytes, userAddr, sealed: part.sealed, mmapOffset };
    });
    return shuffled ? plans.reverse() : plans;
  })
  .filter((plans) => plans.every(({ guestPhysAddr, bytes }) => guestPhysAddr + BigInt(bytes) <= U64));

/** An address given by a region's edge and a distance from it. */
const probe = fc.record({
  region: fc.nat(5),
  atEnd: fc.boolean(),
  by: fc.oneof(fc.integer({ min: -70, max: 70 }), fc.integer({ min: -9000, max: 9000 })),
  length: fc.oneof(fc.nat(150), fc.nat(20_000), fc.constantFrom(0xffff_ffff, 1)),
});

function addressOf(
  plans: readonly RegionPlan[],
  { region, atEnd, by }: { region: number; atEnd: boolean; by: number },
): bigint {
  const plan = plans[region % plans.length];
  if (plan === undefined) throw new Error('no region');
  const address = plan.guestPhysAddr + BigInt(atEnd ? plan.bytes : 0) + BigInt(by);
  return address < 0n ? 0n : address >= U64 ? U64 - 1n : address;
}

/** The regions' bytes that a span lies in, one after the other; undefined where any byte lies in none. */
function naiveSpan(plans: readonly RegionPlan[], address: bigint, length: number) {
  const pieces: { plan: RegionPlan; offset: bigint; length: bigint }[] = [];
  let left = BigInt(length);
  for (let at = address; left > 0n;) {
    const plan = plans.find((p) => at >= p.guestPhysAddr && at < p.guestPhysAddr + BigInt(p.bytes));
    if (plan === undefined) return undefined;
    const room = plan.guestPhysAddr + BigInt(plan.bytes) - at;
    const taken = room < left ? room : left;
    pieces.push({ plan, offset: at - plan.guestPhysAddr, length: taken });
    at += taken;
    left -= taken;
  }
  return pieces;
}

function mapped(ram: GuestRam): GuestMemory {
  const memory = GuestMemory.map(ram.regions, ram.passedFds(), 'guard');
  if (memory instanceof Fault) throw memory;
  return memory;
}

const high = (address: bigint) => Number(address >> 32n);
const low = (address: bigint) => Number(address & 0xffff_ffffn);

const source = new NativeMemory(65536);
for (let i = 0; i < 65536; i++) source.bytes[i] = 1 + (i % 253);
const target = new NativeMemory(65536);

t.test('random layouts: coverage, writes and reads as a naive oracle has them', (t) => {
  let covered = 0;
  let crossing = 0;
  fc.assert(
    fc.property(layout, fc.array(probe, { minLength: 8, maxLength: 8 }), (plans, probes) => {
      const ram = new GuestRam(plans);
      const memory = mapped(ram);
      try {
        for (const one of probes) {
          const address = addressOf(plans, one);
          const span = naiveSpan(plans, address, one.length);
          const what = `0x${address.toString(16)} + ${one.length}`;
          assert.equal(memory.covers(high(address), low(address), one.length), span !== undefined, what);
          if (span === undefined || one.length > 65536) continue;
          covered++;
          if (span.length > 1) crossing++;
          const before = plans.map((plan) => Buffer.from(ram.view(plan.guestPhysAddr, plan.bytes)));
          const from = one.length % 4 === 0 ? 0 : 1;
          const length = Math.min(one.length, 65536 - from);
          assert.equal(memory.write(high(address), low(address), source, from, length), 0);
          let at = from;
          for (const piece of span) {
            const copy = before[plans.indexOf(piece.plan)];
            for (let i = 0; i < Number(piece.length) && at < from + length; i++, at++) {
              if (copy !== undefined) copy[Number(piece.offset) + i] = source.bytes[at] ?? 0;
            }
          }
          plans.forEach((plan, i) =>
            assert.ok(before[i]?.equals(ram.view(plan.guestPhysAddr, plan.bytes)), `${what} wrote elsewhere`),
          );
          target.bytes.fill(0);
          assert.equal(memory.read(high(address), low(address), target, length), 0);
          assert.ok(
            target.bytes.subarray(0, length).equals(source.bytes.subarray(from, from + length)),
            what,
          );
          assert.ok(target.bytes.subarray(length).every((byte) => byte === 0));
        }
      } finally {
        memory.unmap();
        ram.close();
      }
    }),
    { numRuns: 400 },
  );
  t.comment(`${covered} spans, ${crossing} of them across regions`);
  t.ok(covered > 300 && crossing > 30);
  t.end();
});

t.test('front-end addresses: one region holds the whole part of a ring, or none does', (t) => {
  fc.assert(
    fc.property(layout, fc.array(probe, { maxLength: 8 }), (plans, probes) => {
      const ram = new GuestRam(plans);
      const memory = mapped(ram);
      try {
        for (const one of probes) {
          const plan = plans[one.region % plans.length];
          const user = (plan?.userAddr ?? 0n) + BigInt((one.atEnd ? (plan?.bytes ?? 0) : 0) + one.by);
          const place = memory.findFrontend(asFrontendVirtAddr(user), one.length);
          const expected = plans.find(
            (p) =>
              user >= (p.userAddr ?? 0n) && user + BigInt(one.length) <= (p.userAddr ?? 0n) + BigInt(p.bytes),
          );
          assert.equal(place === undefined, expected === undefined);
          if (place === undefined || expected === undefined) continue;
          assert.equal(place.region.description.guestPhysAddr, expected.guestPhysAddr);
          assert.equal(place.offset, Number(user - (expected.userAddr ?? 0n)));
        }
      } finally {
        memory.unmap();
        ram.close();
      }
    }),
    { numRuns: 200 },
  );
  t.end();
});

const AT = 0x10000n;
const one = (guestPhysAddr: bigint, userAddr: bigint) => ({
  guestPhysAddr,
  size: 8192n,
  userAddr,
  mmapOffset: 0n,
});

/** Two regions and whether they go together. Row 52: overlap in either address space. */
const PAIRS = [
  ['side by side', one(AT, AT), one(AT + 8192n, AT + 8192n), undefined],
  ['the same guest addresses', one(AT, AT), one(AT, 2n * AT), 'memory_region_overlap'],
  ['the same front-end addresses', one(AT, AT), one(2n * AT, AT), 'memory_region_overlap'],
  ['one byte shared', one(AT, AT), one(AT + 8191n, 4n * AT), 'memory_region_overlap'],
  ['one byte shared, the other way', one(AT + 8191n, AT), one(AT, 4n * AT), 'memory_region_overlap'],
  [
    'above 2^53, one byte apart from sharing',
    one(2n ** 53n + 1n, AT),
    one(2n ** 53n + 8193n, 4n * AT),
    undefined,
  ],
  [
    'above 2^53, one byte shared',
    one(2n ** 53n + 1n, AT),
    one(2n ** 53n + 8192n, 4n * AT),
    'memory_region_overlap',
  ],
] as const;

t.test('row 52: overlapping regions are refused, neighbours are not', (t) => {
  const ram = new GuestRam([{ guestPhysAddr: 0n, bytes: 8192 }]);
  for (const [title, first, second, code] of PAIRS) {
    const fds = [...ram.passedFds(), ...ram.passedFds()];
    const memory = GuestMemory.map([first, second], fds, 'guard');
    t.equal(memory instanceof Fault ? memory.code : undefined, code, title);
    if (memory instanceof GuestMemory) memory.unmap();
    else for (const fd of fds) closeFd(fd);
  }
  ram.close();
  t.end();
});

t.test('REM_MEM_REG names a region by three of its fields', (t) => {
  const ram = new GuestRam([
    { guestPhysAddr: AT, bytes: 8192 },
    { guestPhysAddr: 2n * AT, bytes: 4096 },
  ]);
  const memory = mapped(ram);
  const [description] = ram.regions;
  if (description === undefined) throw new Error('no region');
  t.equal(memory.find({ ...description, mmapOffset: 77n }), memory.regions[0], 'the offset does not matter');
  for (const field of ['guestPhysAddr', 'size', 'userAddr'] as const) {
    t.equal(memory.find({ ...description, [field]: description[field] + 1n }), undefined, field);
  }
  const [region] = memory.regions;
  if (region === undefined) throw new Error('no region');
  const rest = memory.without(region);
  t.equal(rest.covers(0, Number(AT), 1), false);
  t.equal(rest.covers(0, Number(2n * AT), 4096), true);
  t.equal(memory.covers(0, Number(AT), 8192), true, 'the old table is as it was');
  memory.unmap();
  ram.close();
  t.end();
});
