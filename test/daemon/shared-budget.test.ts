// The host-wide budget in simulated time: never above it, all of it used, shares by weight, nobody starved, no idle timer.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import type { Limit } from '../../daemon/limiter.js';
import { SharedBudget } from '../../daemon/shared-budget.js';
import { Timers } from '../../daemon/timers.js';
import { fullestWindow } from '../support/deliveries.js';
import { type GuestPlan, type SimulatedDevice, SimulatedHost } from '../support/simulated-host.js';
import { TestClock } from '../support/test-clock.js';

/** From daemon/shared-budget.ts and daemon/limiter.ts: what the documentation promises. */
const LEAST_GRANT = 64;
const MAX_PAUSE_MS = 4;
const TIMER_MS = 1;
const QUANTUM_MS = 5;
const PARTS = 256;

function limit(maxBytes: number, periodMs: number): Limit {
  return { maxBytes, periodMs, burstBytes: 0 };
}

function leastGrant({ maxBytes }: Limit): number {
  return Math.max(1, Math.min(LEAST_GRANT, Math.floor(maxBytes / 16)));
}

/** Bytes of a round for each unit of weight, when `least` is the smallest weight. */
function quantumOf(total: Limit, least: number): number {
  const yieldBytes = Math.ceil(total.maxBytes * Math.min(1, QUANTUM_MS / total.periodMs));
  return Math.max(leastGrant(total), yieldBytes) / least;
}

/** Asks for more than there is, all the time. */
const GREEDY: GuestPlan = { weight: 1, depth: 16, bytes: 65_536, thinkMs: 0 };
/** One request outstanding, the next a round trip later. */
const LINUX: GuestPlan = { weight: 1, depth: 1, bytes: 64, thinkMs: 0.05 };

const totals: fc.Arbitrary<Limit> = fc.record({
  maxBytes: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 64, max: 100_000 })),
  periodMs: fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 50, max: 3000 })),
  burstBytes: fc.constant(0),
});

const weights = fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 1000 }));

const plans: fc.Arbitrary<GuestPlan> = fc.record(
  {
    weight: weights,
    depth: fc.constantFrom(1, 2, 16),
    bytes: fc.constantFrom(1, 16, 64, 100, 4096, 65_536),
    thinkMs: fc.constantFrom(0, 0.05, 0.7, 3, 40),
    limit: totals,
  },
  { requiredKeys: ['weight', 'depth', 'bytes', 'thinkMs'] },
);

/** What an operator and VMMs do meanwhile. */
const deed = fc.oneof(
  fc.record({ kind: fc.constant('disconnect' as const), device: fc.nat(5) }),
  fc.record({ kind: fc.constant('reconnect' as const), device: fc.nat(5) }),
  fc.record({ kind: fc.constant('weight' as const), device: fc.nat(5), weight: weights }),
  fc.record({ kind: fc.constant('total' as const), total: fc.option(totals, { nil: undefined, freq: 6 }) }),
  fc.record({ kind: fc.constant('limit' as const), device: fc.nat(5), limit: totals }),
);

/** Guests without a limit for as long as there is no budget either would be served for ever. */
const MAX_UNLIMITED_PASSES = 300;

t.test(
  'whatever comes, goes and changes, the budget and every limit hold, and nothing is armed for nobody',
  (t) => {
    fc.assert(
      fc.property(
        totals,
        fc.array(plans, { minLength: 1, maxLength: 6 }),
        fc.array(fc.tuple(fc.double({ min: 0.001, max: 0.9, noNaN: true }), deed), { maxLength: 12 }),
        (first, guests, deeds) => {
          const host = new SimulatedHost(first);
          let total: Limit | undefined = first;
          const limits = new Map<SimulatedDevice, Limit>();
          const devices = guests.map((plan) => {
            const device = host.add(plan);
            if (plan.limit !== undefined) limits.set(device, plan.limit);
            return device;
          });
          host.onDelivery = (device, nowMs) => {
            if (total !== undefined) {
              const bytes = host.ledger.since(nowMs - total.periodMs);
              assert.ok(bytes <= total.maxBytes, `${bytes} of the host under ${total.maxBytes}`);
            }
            const own = limits.get(device);
            if (own === undefined) return;
            const bytes = device.ledger.since(nowMs - own.periodMs);
            assert.ok(bytes <= own.maxBytes, `${bytes} of a device under ${own.maxBytes}`);
          };
          const look = (): void => {
            if (!host.isWaiting) assert.equal(host.budget.dueMs, Infinity, 'nobody waits, a timer is armed');
          };
          for (const device of devices) device.start();
          for (const [part, what] of deeds) {
            host.run(part * (total?.periodMs ?? 5), look, MAX_UNLIMITED_PASSES);
            const device = 'device' in what ? devices[what.device % devices.length] : undefined;
            if (what.kind === 'total') {
              total = what.total;
              host.change(total);
            } else if (what.kind === 'disconnect') {
              device?.disconnect();
            } else if (what.kind === 'reconnect') {
              device?.disconnect();
              device?.reconnect();
            } else if (what.kind === 'weight') {
              if (device !== undefined) device.share.weight = what.weight;
            } else if (device !== undefined) {
              limits.set(device, what.limit);
              device.limiter.change(what.limit);
              device.resume();
            }
          }
          if (total !== undefined) host.run(2 * total.periodMs, look, MAX_UNLIMITED_PASSES);
          assert.equal(
            devices.reduce((sum, { ledger }) => sum + ledger.total, 0),
            host.ledger.total,
          );
          // Once everybody has gone, nothing is armed and, a period later, the budget is whole again.
          for (const device of devices) device.disconnect();
          assert.equal(host.timers.timeoutMs(), -1);
          assert.ok(devices.every(({ share }) => !share.contends));
          const newcomer = host.add(GREEDY);
          host.clock.advance(3001);
          assert.equal(newcomer.share.available(), total?.maxBytes ?? Number.MAX_SAFE_INTEGER);
        },
      ),
      { numRuns: 300 },
    );
    t.end();
  },
);

t.test('all of the budget is used while anyone waits, whoever else comes and goes', (t) => {
  fc.assert(
    fc.property(totals, fc.array(plans, { maxLength: 4 }), (total, others) => {
      const host = new SimulatedHost(total);
      const greedy = host.add(GREEDY);
      // With limits of their own they come and go.
      for (const plan of others) host.add(plan).start();
      greedy.start();
      const PERIODS = 12;
      host.run(PERIODS * total.periodMs);
      // Late by a part of a period, a timer's rounding and a pause each time round.
      const roundMs = total.periodMs * (1 + 1 / PARTS) + TIMER_MS + MAX_PAUSE_MS + TIMER_MS;
      const rounds = Math.floor((PERIODS * total.periodMs) / roundMs);
      const least = rounds * (total.maxBytes - leastGrant(total) + 1);
      assert.ok(host.ledger.total >= least, `${host.ledger.total} of at least ${least}`);
    }),
    { numRuns: 300 },
  );
  t.end();
});

t.test(
  'devices that always wait differ by less than a quantum, byte for byte of their weight, over any interval',
  (t) => {
    fc.assert(
      fc.property(
        totals,
        fc.array(fc.record({ weight: weights, bytes: fc.constantFrom(64, 100, 4096, 65_536) }), {
          minLength: 2,
          maxLength: 5,
        }),
        (total, guests) => {
          const host = new SimulatedHost(total);
          const devices = guests.map(({ weight, bytes }) =>
            host.add({ ...GREEDY, weight, bytes, depth: 2000 }),
          );
          // The first to come may have all there is: what they share is what comes back.
          const [first] = devices;
          for (const device of devices) device.start();
          while (host.budget.dueMs === Infinity) host.run(0.001);
          host.run(0.001);
          const least = Math.min(...guests.map(({ weight }) => weight));
          const quantum = quantumOf(total, least);
          const before = new Map(devices.map((device) => [device, device.ledger.total]));
          const normal = (device: SimulatedDevice): number =>
            (device.ledger.total - (before.get(device) ?? 0)) / device.plan.weight;
          const ranges = devices.map(() => ({ low: 0, high: 0 }));
          host.onDelivery = () => {
            devices.forEach((device, i) => {
              const range = ranges[i];
              if (first === undefined || range === undefined) return;
              const ahead = normal(device) - normal(first);
              range.low = Math.min(range.low, ahead);
              range.high = Math.max(range.high, ahead);
            });
          };
          const sharesBytes =
            (quantum * guests.reduce((sum, { weight }) => sum + weight, 0) * 6) / total.maxBytes;
          host.run(total.periodMs * Math.min(40, 3 + sharesBytes), () => undefined, 20_000);
          devices.forEach((device, i) => {
            const rest =
              leastGrant(total) / device.plan.weight + leastGrant(total) / (first?.plan.weight ?? 1);
            const { low, high } = ranges[i] ?? { low: NaN, high: NaN };
            assert.ok(high - low <= quantum + rest + 1e-6, `${high - low} apart, quantum ${quantum}`);
          });
        },
      ),
      { numRuns: 200 },
    );
    t.end();
  },
);

t.test('nobody starves: a request waits for two rounds of the others at most', (t) => {
  fc.assert(
    fc.property(totals, fc.array(plans, { minLength: 2, maxLength: 6 }), (total, guests) => {
      const host = new SimulatedHost(total);
      const devices = guests.map(({ weight, depth, bytes, thinkMs }) =>
        host.add({ weight, depth, bytes, thinkMs }),
      );
      for (const device of devices) device.start();
      host.run(total.periodMs * 15, () => undefined, 30_000);
      for (const device of devices) {
        const others = guests.filter((_, i) => devices[i] !== device);
        // The smallest weight in a round is at least this.
        const quantum = quantumOf(total, Math.min(...guests.map(({ weight }) => weight)));
        const round = others.reduce((sum, { weight }) => sum + quantum * weight + LEAST_GRANT, 0);
        const periods = Math.ceil((2 * round + LEAST_GRANT) / (total.maxBytes - leastGrant(total) + 1)) + 1;
        const boundMs =
          periods * (total.periodMs * (1 + 1 / PARTS) + TIMER_MS) + 2 * (MAX_PAUSE_MS + TIMER_MS);
        // What waits at the end counts too.
        const waitsMs =
          host.clock.now -
          Math.max(device.requests[0] ?? Infinity, device.ledger.deliveries.at(-1)?.atMs ?? 0);
        assert.ok(
          Math.max(waitsMs, device.longestWaitMs) <= boundMs,
          `${device.longestWaitMs} of ${boundMs} ms`,
        );
      }
    }),
    { numRuns: 200 },
  );
  t.end();
});

/** Runs for so many periods after the first, which whoever comes first may have; each device's part of all bytes. */
function parts(total: Limit, guests: readonly GuestPlan[], periods = 20): number[] {
  const host = new SimulatedHost(total);
  const devices = guests.map((plan) => host.add(plan));
  for (const device of devices) device.start();
  host.run(2 * total.periodMs);
  const before = devices.map(({ ledger }) => ledger.total);
  host.run(periods * total.periodMs);
  const got = devices.map(({ ledger }, i) => ledger.total - (before[i] ?? 0));
  const sum = got.reduce((all, bytes) => all + bytes, 0);
  assert.ok(sum >= 0.98 * periods * total.maxBytes, `${sum} bytes used`);
  assert.ok(fullestWindow(host.ledger.deliveries, total.periodMs).bytes <= total.maxBytes);
  return got.map((bytes) => bytes / sum);
}

t.test('one request of 64 bytes at a time gets as many bytes as a deep queue of 64 KiB', (t) => {
  for (const total of [limit(65_536, 1000), limit(4096, 250), limit(1 << 20, 65_536), limit(262_144, 1000)]) {
    const [deep = NaN, linux = NaN] = parts(total, [GREEDY, LINUX]);
    t.ok(Math.abs(deep - linux) < 0.04, `${total.maxBytes} in ${total.periodMs} ms: ${deep} and ${linux}`);
    const three = parts(total, [{ ...LINUX, weight: 3 }, GREEDY, LINUX]);
    t.ok(
      [0.6, 0.2, 0.2].every((part, i) => Math.abs(part - (three[i] ?? NaN)) < 0.03),
      `weights 3, 1, 1: ${three.join()}`,
    );
  }
  t.end();
});

t.test('what a slow guest cannot take, the others have', (t) => {
  // 64 bytes in 10 ms are a tenth of its half.
  const [deep = NaN, slow = NaN] = parts(limit(128_000, 1000), [GREEDY, { ...LINUX, thinkMs: 10 }]);
  t.ok(slow > 0.03 && slow < 0.06, `${slow}`);
  t.ok(deep > 0.94, `${deep}`);
  t.end();
});

t.test('nor does it save what it cannot take', (t) => {
  const total = limit(1_000_000, 1000);
  const host = new SimulatedHost(total);
  const slow = host.add({ ...LINUX, thinkMs: 0.9 });
  let most = 0;
  host.onDelivery = () => (most = Math.max(most, slow.share.leftBytes));
  for (const device of [host.add(GREEDY), slow]) device.start();
  host.run(3000);
  t.ok(most > 0 && most <= quantumOf(total, 1) + LEAST_GRANT, `${most} bytes`);
  t.end();
});

t.test('a device at its own limit leaves the rest to the others', (t) => {
  const own = limit(1000, 1000);
  const [free = NaN, limited = NaN] = parts(limit(64_000, 1000), [GREEDY, { ...GREEDY, limit: own }]);
  t.ok(Math.abs(limited * 64_000 - 1000) < 30, `${limited}`);
  t.ok(free > 0.98, `${free}`);
  t.end();
});

t.test(
  'a lone device may have all of it at once, and no answer is shorter than 64 bytes while the budget trickles',
  (t) => {
    const host = new SimulatedHost(limit(100_000, 1000));
    const device = host.add(GREEDY);
    device.start();
    host.run(1);
    t.equal(device.ledger.total, 100_000);
    host.run(20_000);
    const other = host.add({ ...GREEDY, bytes: 3000 });
    other.start();
    host.run(20_000);
    t.ok(device.smallestAnswer >= 64, `${device.smallestAnswer}`);
    t.ok(other.smallestAnswer >= 64, `${other.smallestAnswer}`);
    t.end();
  },
);

t.test('a reconnect renews nothing and jumps no queue', (t) => {
  const host = new SimulatedHost(limit(65_536, 1000));
  const [honest, cheat] = [host.add(GREEDY), host.add(GREEDY)];
  honest.start();
  cheat.start();
  host.run(2000);
  const before = [honest.ledger.total, cheat.ledger.total];
  for (let i = 0; i < 20_000; i++) {
    cheat.disconnect();
    cheat.reconnect();
    host.run(1);
  }
  const [mine, its] = [honest.ledger.total - (before[0] ?? 0), cheat.ledger.total - (before[1] ?? 0)];
  t.ok(its <= mine * 1.02, `${its} against ${mine}`);
  t.ok(mine + its <= 21 * 65_536);
  t.end();
});

t.test('raising or removing the budget serves those who wait at once', (t) => {
  const host = new SimulatedHost(limit(1000, 3_600_000));
  const plan = { ...LINUX, depth: 100, bytes: 1000, thinkMs: 1e9 };
  const devices = [host.add(plan), host.add(plan)];
  for (const device of devices) device.start();
  host.run(1);
  t.equal(host.ledger.total, 1000);
  host.change(limit(3000, 3_600_000));
  host.run(10);
  const total = host.ledger.total;
  t.ok(total >= 1500 && total < 2000, `${total}: half at once, the rest is spread over the period`);
  host.change(undefined);
  host.run(50);
  t.ok(devices.every(({ requests }) => requests.length === 0));
  t.equal(host.timers.timeoutMs(), -1);
  t.end();
});

t.test('nothing is armed, and nobody is in the way, as long as there is enough', (t) => {
  const clock = new TestClock(0);
  const timers = new Timers(clock);
  const budget = new SharedBudget(limit(1000, 1000), clock, timers);
  const [one, two] = [budget.newShare(1), budget.newShare(1000)];
  t.equal(one.available(), 1000);
  one.charge(400);
  t.equal(two.available(), 600);
  two.charge(590);
  t.equal(one.available(), 10);
  t.equal(one.leastOf(64), 62, 'a sixteenth of a small budget');
  t.equal(one.leastOf(5), 5);
  t.notOk(one.contends || two.contends);
  t.equal(timers.timeoutMs(), -1);
  const ring = { resume: () => undefined };
  one.wait(ring, 62);
  t.equal(timers.timeoutMs(), 1000);
  t.equal(two.available(), 0, 'what is there belongs to the one who waits');
  one.forget(ring);
  t.equal(timers.timeoutMs(), -1, 'nobody waits any more');
  clock.set(1000);
  t.equal(two.available(), 1000);
  t.end();
});
