// The rate limit: never above the quota in any window of one period, nothing lost, and a greedy guest gets its rate.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { type Limit, Limiter } from '../../daemon/limiter.js';
import { LimiterMemory } from '../../daemon/limiter-memory.js';
import { type Delivery, fullestWindow, Ledger } from '../support/deliveries.js';
import { TestClock } from '../support/test-clock.js';

const limits = fc.record({
  maxBytes: fc.oneof(
    fc.integer({ min: 1, max: 200 }),
    fc.integer({ min: 1, max: 2 ** 31 }),
    fc.constant(2 ** 53 - 1),
  ),
  periodMs: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 100_000 })),
});

/** A wait, as a part of the period, and how much is wanted then, as a part of the quota. */
const step = fc.record({
  /** The most that is asked about, as a part of the quota. */
  most: fc.oneof(fc.constant(1), fc.double({ min: 0, max: 1, noNaN: true })),
  wait: fc.oneof(
    fc.double({ min: 0, max: 0.01, noNaN: true }),
    fc.double({ min: 0, max: 1.5, noNaN: true }),
    fc.constantFrom(0, 1, 1 / 256, 1 - 1e-9),
  ),
  want: fc.oneof(fc.constant(1), fc.double({ min: 0, max: 0.2, noNaN: true })),
  /** How long after asking the bytes are charged, as the daemon does when it has published them. */
  late: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 0.01, noNaN: true })),
});

const START_MS = 5000.125;

/** A limiter on a clock that the test moves. */
class Bench {
  readonly clock = new TestClock(START_MS);
  readonly limiter: Limiter;
  readonly maxBytes: number;
  readonly periodMs: number;

  constructor(maxBytes: number, periodMs: number) {
    this.maxBytes = maxBytes;
    this.periodMs = periodMs;
    this.limiter = new Limiter({ maxBytes, periodMs, burstBytes: 0 }, this.clock);
  }

  /** Takes what the steps ask for, as far as the limiter allows. */
  play(steps: readonly { wait: number; want: number; late: number; most: number }[]): Delivery[] {
    const { clock, limiter, maxBytes, periodMs } = this;
    const deliveries: Delivery[] = [];
    for (const { wait, want, late, most } of steps) {
      clock.advance(wait * periodMs);
      const available = limiter.available(Math.ceil(most * maxBytes));
      assert.ok(available >= 0 && available <= maxBytes, `${available} available`);
      const bytes = Math.min(available, Math.ceil(want * maxBytes));
      if (bytes === 0) continue;
      clock.advance(late * periodMs);
      limiter.charge(bytes);
      deliveries.push({ atMs: clock.now, bytes });
    }
    return deliveries;
  }
}

function played(maxBytes: number, periodMs: number, steps: Parameters<Bench['play']>[0]) {
  const bench = new Bench(maxBytes, periodMs);
  const deliveries = bench.play(steps);
  return { clock: bench.clock, limiter: bench.limiter, deliveries };
}

t.test('whatever the pattern, no window of one period holds more than the quota', (t) => {
  fc.assert(
    fc.property(limits, fc.array(step, { maxLength: 400 }), ({ maxBytes, periodMs }, steps) => {
      const deliveries = new Bench(maxBytes, periodMs).play(steps);
      const { bytes, fromMs } = fullestWindow(deliveries, periodMs);
      assert.ok(bytes <= maxBytes, `${bytes} bytes in the period from ${fromMs} on`);
    }),
    { numRuns: 2000 },
  );
  t.end();
});

t.test('after a quiet period the whole quota is back, to the byte', (t) => {
  fc.assert(
    fc.property(limits, fc.array(step, { maxLength: 400 }), ({ maxBytes, periodMs }, steps) => {
      const bench = new Bench(maxBytes, periodMs);
      const last = bench.play(steps).at(-1)?.atMs ?? 0;
      bench.clock.set(Math.max(bench.clock.now, last + periodMs + 1e-3));
      assert.equal(bench.limiter.available(), maxBytes);
      assert.equal(bench.limiter.releaseMs(maxBytes), 0);
    }),
    { numRuns: 1000 },
  );
  t.end();
});

t.test('what was charged in one moment is back after exactly one period', (t) => {
  const clock = new TestClock(0);
  const limiter = new Limiter({ maxBytes: 100, periodMs: 1000, burstBytes: 0 }, clock);
  t.equal(limiter.available(), 100);
  limiter.charge(100);
  clock.set(999.999);
  t.equal(limiter.available(), 0);
  t.equal(limiter.releaseMs(1), 1000);
  clock.set(1000);
  t.equal(limiter.available(), 100);
  t.end();
});

t.test('the next release is never early and never more than a part of a period late', (t) => {
  fc.assert(
    fc.property(limits, fc.array(step, { minLength: 1, maxLength: 400 }), ({ maxBytes, periodMs }, steps) => {
      const { clock, limiter, deliveries } = played(maxBytes, periodMs, steps);
      const last = deliveries.at(-1);
      if (last === undefined) return;
      const before = limiter.available();
      if (before === maxBytes) return;
      const release = limiter.releaseMs(before + 1);
      // Around the edge of the period rounding decides what is the oldest.
      const edge = clock.now - periodMs;
      const slackMs = 1e-6 * periodMs;
      const oldest = deliveries.find(({ atMs }) => atMs > edge - slackMs)?.atMs ?? 0;
      const surelyHeld = deliveries.find(({ atMs }) => atMs > edge + slackMs)?.atMs ?? Infinity;
      assert.ok(release >= oldest + periodMs - slackMs);
      assert.ok(release <= surelyHeld + periodMs * (1 + 1 / 256) + slackMs);
      clock.set(release + 1e-6 * periodMs);
      assert.ok(limiter.available() > before, 'and bytes do come back then');
    }),
    { numRuns: 1000 },
  );
  t.end();
});

/** Starts with the quota spread in some way, then takes 64 bytes at a time whenever there is any. */
t.test('a greedy guest gets at least 98 % of its rate, however it has begun', (t) => {
  fc.assert(
    fc.property(
      fc.record({
        maxBytes: fc.integer({ min: 1, max: 20_000 }),
        periodMs: fc.integer({ min: 1, max: 70_000 }),
      }),
      fc.array(step, { maxLength: 300 }),
      ({ maxBytes, periodMs }, steps) => {
        const { clock, limiter } = played(maxBytes, periodMs, steps);
        const startMs = clock.now;
        const PERIODS = 60;
        let total = 0;
        while (clock.now < startMs + PERIODS * periodMs) {
          const bytes = Math.min(64, limiter.available());
          if (bytes > 0) {
            limiter.charge(bytes);
            total += bytes;
          } else {
            clock.set(Math.max(clock.now, limiter.releaseMs(1)) + 1e-9 * periodMs);
          }
        }
        // What was spent before the start may hold back most of a period.
        assert.ok(total >= 0.98 * maxBytes * (PERIODS - 1), `${total} of ${maxBytes * PERIODS}`);
      },
    ),
    { numRuns: 150 },
  );
  t.end();
});

t.test('a burst is given once, when the quota is empty, and never comes back', (t) => {
  const clock = new TestClock(0);
  const limiter = new Limiter({ maxBytes: 100, periodMs: 1000, burstBytes: 30 }, clock);
  t.equal(limiter.available(), 130);
  limiter.charge(90);
  t.equal(limiter.available(), 40, 'the quota goes first');
  clock.set(1000);
  t.equal(limiter.available(), 130);
  limiter.charge(110);
  t.equal(limiter.available(), 20);
  limiter.charge(20);
  t.equal(limiter.releaseMs(1), 2000);
  clock.set(2000);
  t.equal(limiter.available(), 100, 'what was taken of the burst is gone');
  clock.set(1e9);
  t.equal(limiter.available(), 100);
  limiter.change({ maxBytes: 100, periodMs: 1000, burstBytes: 30 });
  t.equal(limiter.available(), 100, 'setting the same burst again renews nothing');
  limiter.change(undefined);
  limiter.change({ maxBytes: 100, periodMs: 1000, burstBytes: 30 });
  t.equal(limiter.available(), 100, 'nor does having no limit for a while');
  limiter.change({ maxBytes: 100, periodMs: 1000, burstBytes: 37 });
  t.equal(limiter.available(), 107, 'a larger one gives the difference');
  t.end();
});

t.test('any number of whole periods holds their quotas and at most one burst', (t) => {
  fc.assert(
    fc.property(
      limits.filter(({ maxBytes }) => maxBytes < 2 ** 50),
      fc.double({ min: 0, max: 3, noNaN: true }),
      fc.array(step, { maxLength: 300 }),
      ({ maxBytes, periodMs }, burst, steps) => {
        const burstBytes = Math.round(burst * maxBytes);
        const clock = new TestClock(START_MS);
        const limiter = new Limiter({ maxBytes, periodMs, burstBytes }, clock);
        const deliveries: Delivery[] = [];
        for (const { wait, want } of steps) {
          clock.advance(wait * periodMs);
          const bytes = Math.min(limiter.available(), Math.ceil(want * 2 * maxBytes));
          if (bytes === 0) continue;
          limiter.charge(bytes);
          deliveries.push({ atMs: clock.now, bytes });
        }
        for (const periods of [1, 2, 5, 50]) {
          const { bytes } = fullestWindow(deliveries, periods * periodMs);
          assert.ok(bytes <= periods * maxBytes + burstBytes, `${bytes} in ${periods} periods`);
        }
      },
    ),
    { numRuns: 1000 },
  );
  t.end();
});

const anyLimit: fc.Arbitrary<Limit | undefined> = fc.option(
  fc.record({
    maxBytes: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 1_000_000 })),
    periodMs: fc.integer({ min: 1, max: 2000 }),
    burstBytes: fc.constant(0),
  }),
  { nil: undefined, freq: 5 },
);

/** Deliver as far as the limiter allows (at most `most`), after a wait; or set another limit. */
const deed = fc.oneof(
  { weight: 20, arbitrary: fc.record({ waitMs: fc.nat(200), most: fc.nat(100_000) }) },
  { weight: 1, arbitrary: fc.record({ limit: anyLimit }) },
);

t.test(
  'whatever the limit is changed to, nothing is delivered that makes a window exceed the new quota',
  (t) => {
    fc.assert(
      fc.property(anyLimit, fc.array(deed, { maxLength: 300 }), (first, deeds) => {
        const clock = new TestClock(START_MS);
        const limiter = new Limiter(first, clock);
        const ledger = new Ledger();
        let limit = first;
        for (const one of deeds) {
          if ('limit' in one) {
            limit = one.limit;
            limiter.change(limit);
            continue;
          }
          clock.advance(one.waitMs);
          const bytes = Math.min(limiter.available(), one.most);
          if (bytes === 0) continue;
          limiter.charge(bytes);
          ledger.add(clock.now, bytes);
          if (limit === undefined) continue;
          const { periodMs, maxBytes } = limit;
          const sum = ledger.since(clock.now - periodMs);
          assert.ok(sum <= maxBytes, `${sum} bytes in the last ${periodMs} ms under ${maxBytes}`);
        }
      }),
      { numRuns: 2000 },
    );
    t.end();
  },
);

t.test('one period after a change the new quota is free, to the byte, whatever was before', (t) => {
  fc.assert(
    fc.property(anyLimit, fc.array(deed, { maxLength: 100 }), (first, deeds) => {
      const clock = new TestClock(START_MS);
      const limiter = new Limiter(first, clock);
      for (const one of deeds) {
        if ('limit' in one) {
          limiter.change(one.limit);
          continue;
        }
        clock.advance(one.waitMs);
        limiter.charge(Math.min(limiter.available(), one.most));
      }
      limiter.change({ maxBytes: 1234, periodMs: 777, burstBytes: 0 });
      clock.advance(777.001);
      assert.equal(limiter.available(), 1234);
    }),
    { numRuns: 500 },
  );
  t.end();
});

t.test('what a change does at once', (t) => {
  const clock = new TestClock(0);
  const limiter = new Limiter({ maxBytes: 1000, periodMs: 1000, burstBytes: 0 }, clock);
  limiter.charge(600);
  clock.set(500);
  limiter.charge(400);
  limiter.change({ maxBytes: 1500, periodMs: 1000, burstBytes: 0 });
  t.equal(limiter.available(), 500, 'raised: the difference is there');
  limiter.change({ maxBytes: 300, periodMs: 1000, burstBytes: 0 });
  t.equal(limiter.available(), 0, 'lowered: what was delivered counts');
  t.equal(limiter.releaseMs(1), 1500, 'until enough of it has come back');
  limiter.change({ maxBytes: 1000, periodMs: 400, burstBytes: 0 });
  t.equal(limiter.available(), 600, 'a shorter period: what is older no longer counts');
  limiter.change(undefined);
  t.equal(limiter.available(), Number.MAX_SAFE_INTEGER, 'no limit');
  limiter.charge(1e6);
  limiter.change({ maxBytes: 1000, periodMs: 1000, burstBytes: 0 });
  t.equal(limiter.available(), 0, 'a limit again: what was delivered without one counts');
  clock.set(1500);
  t.equal(limiter.available(), 1000, 'for one period');
  t.end();
});

/** 1000 bytes a second for a minute; then 20 000 in ten seconds: nine seconds of the old rate are no longer known apart. */
t.test('a longer period counts what the old limit can have let pass, not more', (t) => {
  const clock = new TestClock(0);
  const limiter = new Limiter({ maxBytes: 1000, periodMs: 1000, burstBytes: 0 }, clock);
  for (let ms = 0; ms < 60_000; ms += 10) {
    clock.set(ms);
    limiter.charge(Math.min(10, limiter.available()));
  }
  limiter.change({ maxBytes: 20_000, periodMs: 10_000, burstBytes: 0 });
  const free = limiter.available();
  t.ok(free <= 10_000, `${free} free`);
  t.ok(free >= 9000, `${free} free`);
  t.end();
});

t.test('many changes in a row lose nothing but what is older than the eras that are told apart', (t) => {
  const clock = new TestClock(0);
  const limiter = new Limiter(undefined, clock);
  limiter.charge(5000);
  for (let i = 0; i < 100; i++) {
    clock.advance(1);
    limiter.change({ maxBytes: 10_000 + i, periodMs: 1000 + i, burstBytes: 0 });
  }
  t.equal(limiter.available(), 10_099 - 5000, 'what was delivered before all of them counts once');
  clock.advance(1100);
  t.equal(limiter.available(), 10_099);
  t.end();
});

t.test('a limiter in the memory of another goes on as that one would have, whatever was done before', (t) => {
  fc.assert(
    fc.property(anyLimit, fc.array(deed, { maxLength: 200 }), fc.nat(200), (first, deeds, at) => {
      const clock = new TestClock(START_MS);
      const memory = new LimiterMemory();
      const stays = new Limiter(first, clock);
      let limit = first;
      let replaced = new Limiter(first, clock, memory);
      for (const [i, one] of deeds.entries()) {
        // The process that held it is gone; the next one finds its memory and the limit that is configured.
        if (i % 40 === at % 40) replaced = new Limiter(limit, clock, memory);
        if ('limit' in one) {
          limit = one.limit;
          for (const limiter of [stays, replaced]) limiter.change(limit);
          continue;
        }
        clock.advance(one.waitMs);
        assert.equal(replaced.available(), stays.available());
        const bytes = Math.min(stays.available(), one.most);
        if (bytes === 0) continue;
        for (const limiter of [stays, replaced]) limiter.charge(bytes);
        if (limit !== undefined) assert.equal(replaced.releaseMs(1), stays.releaseMs(1));
      }
    }),
    { numRuns: 1000 },
  );
  t.end();
});

t.test(
  'burst bytes that were taken stay taken, and a limit that changed meanwhile counts what was delivered',
  (t) => {
    const clock = new TestClock(START_MS);
    const memory = new LimiterMemory();
    const before = new Limiter({ maxBytes: 100, periodMs: 1000, burstBytes: 50 }, clock, memory);
    before.charge(120);
    const same = new Limiter({ maxBytes: 100, periodMs: 1000, burstBytes: 50 }, clock, memory);
    t.equal(same.available(), 30, 'of the quota nothing, of the burst what is left');
    const raised = new Limiter({ maxBytes: 300, periodMs: 1000, burstBytes: 50 }, clock, memory);
    t.equal(raised.available(), 230);
    const lifted = new Limiter(undefined, clock, memory);
    t.equal(lifted.available(), Number.MAX_SAFE_INTEGER);
    t.end();
  },
);
