// The row of rings that wait for one device's limit: never more than the limit, each in its turn, and no timer when nobody waits.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { Limiter } from '../../daemon/limiter.js';
import { LimitTurns, type LimitWaiter } from '../../daemon/limit-turns.js';
import { Timers } from '../../daemon/timers.js';
import { Ledger as DeliveryLedger } from '../support/deliveries.js';
import { TestClock } from '../support/test-clock.js';

const START_MS = 1000;

/** A ring whose guest has up to `depth` requests of 64 bytes, and as many again once it was served; a pass comes at once. */
class GreedyRing implements LimitWaiter {
  bytes = 0;
  passes = 0;
  /** All its requests were served; its guest comes back at the next step. */
  idle = false;
  private readonly device: Device;
  private readonly depth: number;

  constructor(device: Device, depth: number) {
    this.device = device;
    this.depth = depth;
  }

  resume(): void {
    const { limiter, turns, clock, ledger } = this.device;
    turns.leave(this);
    this.passes++;
    const free = turns.mayTake(this) ? limiter.available(64 * this.depth) : 0;
    if (free > 0) {
      limiter.charge(free);
      ledger.add(clock.now, free);
      this.bytes += free;
    }
    this.idle = free === 64 * this.depth;
    if (this.idle) turns.passed(this);
    else turns.wait(this);
  }
}

class Device {
  readonly clock = new TestClock(START_MS);
  readonly timers = new Timers(this.clock);
  readonly limiter: Limiter;
  readonly turns: LimitTurns;
  readonly ledger = new DeliveryLedger();
  readonly rings: readonly GreedyRing[];

  constructor(maxBytes: number, periodMs: number, depths: readonly number[]) {
    this.limiter = new Limiter({ maxBytes, periodMs, burstBytes: 0 }, this.clock);
    this.turns = new LimitTurns(this.timers, this.limiter);
    this.rings = depths.map((depth) => new GreedyRing(this, depth));
  }

  /** Lets time go by in steps; guests that were served come back at each, the first ring's first, which must win nothing by it. */
  run(ms: number, stepMs: number): void {
    for (let passed = 0; passed < ms; passed += stepMs) {
      this.clock.advance(stepMs);
      this.timers.run();
      for (const ring of this.rings) if (ring.idle) ring.resume();
    }
  }
}

t.test('whatever the guests ask for, each has its turn, and together they have the limit', (t) => {
  fc.assert(
    fc.property(
      fc.record({
        maxBytes: fc.integer({ min: 64, max: 4096 }),
        periodMs: fc.integer({ min: 10, max: 200 }),
        depths: fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1, maxLength: 5 }),
      }),
      ({ maxBytes, periodMs, depths }) => {
        const device = new Device(maxBytes, periodMs, depths);
        for (const ring of device.rings) ring.resume();
        const before = device.rings.map(({ passes }) => passes);
        // A period gives back bit by bit what it took, in up to 256 parts: each ring is first in the row many times.
        for (let i = 0; i < 20 * depths.length; i++) device.run(periodMs, periodMs / 4);
        const turns = device.rings.map(({ passes }, i) => passes - (before[i] ?? 0));
        assert.ok(Math.min(...turns) >= Math.max(...turns) / 4 - 2, `turns ${turns.join()}`);
        const last = device.ledger.since(device.clock.now - periodMs);
        assert.ok(last <= maxBytes, `${last} bytes in the last ${periodMs} ms under ${maxBytes}`);
        for (const ring of device.rings) assert.ok(ring.bytes > 0, 'every ring was served');
      },
    ),
    { numRuns: 100 },
  );
  t.end();
});

t.test('one ring alone is a timer; a ring that leaves is waited for no more', (t) => {
  const device = new Device(64, 1000, [1, 1]);
  const [first, second] = device.rings;
  if (first === undefined || second === undefined) throw new Error('two rings');
  first.resume();
  first.resume();
  t.equal(device.turns.dueMs, START_MS + 1000, 'when the quota comes back');
  second.resume();
  device.turns.leave(first);
  device.clock.set(START_MS + 1000);
  device.timers.run();
  t.equal(second.bytes, 64, 'the next in the row has it');
  device.turns.leave(second);
  t.equal(device.turns.dueMs, Infinity, 'nothing is armed while nobody waits');
  t.end();
});

t.test('nobody passes those who wait: a ring that asks when quota is there, behind another, waits', (t) => {
  const device = new Device(64, 1000, [1, 1]);
  const [first, second] = device.rings;
  if (first === undefined || second === undefined) throw new Error('two rings');
  first.resume();
  first.resume();
  device.clock.set(START_MS + 1001);
  second.resume();
  t.equal(second.bytes, 0, 'though there is quota now');
  device.timers.run();
  t.equal(first.bytes, 128, 'which is the turn of the first');
  device.clock.set(START_MS + 2002);
  device.timers.run();
  t.equal(second.bytes, 64);
  t.end();
});
