// The rate limit: never above the quota in any window of one period, nothing lost, and a greedy guest gets its rate.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { Limiter } from '../../daemon/limiter.js';
import { TestClock } from '../support/test-clock.js';

interface Delivery {
  readonly atMs: number;
  readonly bytes: number;
}

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

  constructor(maxBytes: number, periodMs: number) {
    this.limiter = new Limiter(maxBytes, periodMs, this.clock);
  }

  /** Takes what the steps ask for, as far as the limiter allows. */
  play(steps: readonly { wait: number; want: number; late: number }[]): Delivery[] {
    const { clock, limiter } = this;
    const deliveries: Delivery[] = [];
    for (const { wait, want, late } of steps) {
      clock.advance(wait * limiter.periodMs);
      const available = limiter.available();
      assert.ok(available >= 0 && available <= limiter.maxBytes, `${available} available`);
      const bytes = Math.min(available, Math.ceil(want * limiter.maxBytes));
      if (bytes === 0) continue;
      clock.advance(late * limiter.periodMs);
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
      // The fullest windows begin with a delivery; a window is open at its end.
      let end = 0;
      let sum = 0;
      for (const first of deliveries) {
        for (
          let next = deliveries[end];
          next !== undefined && next.atMs < first.atMs + periodMs;
          next = deliveries[end]
        ) {
          sum += next.bytes;
          end++;
        }
        assert.ok(sum <= maxBytes, `${sum} bytes in the period from ${first.atMs} on`);
        sum -= first.bytes;
      }
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
      assert.equal(bench.limiter.nextReleaseMs(), Infinity);
    }),
    { numRuns: 1000 },
  );
  t.end();
});

t.test('what was charged in one moment is back after exactly one period', (t) => {
  const clock = new TestClock(0);
  const limiter = new Limiter(100, 1000, clock);
  t.equal(limiter.available(), 100);
  limiter.charge(100);
  clock.set(999.999);
  t.equal(limiter.available(), 0);
  t.equal(limiter.nextReleaseMs(), 1000);
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
      const release = limiter.nextReleaseMs();
      if (release === Infinity) return;
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
            clock.set(Math.max(clock.now, limiter.nextReleaseMs()) + 1e-9 * periodMs);
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
