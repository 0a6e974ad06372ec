// Timers on a clock that the test turns: what is due runs once, whatever is armed and disarmed meanwhile.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { type Timer, Timers } from '../../daemon/timers.js';
import { TestClock } from '../support/test-clock.js';

class TestTimer implements Timer {
  dueMs = Infinity;
  runs = 0;
  crashes: unknown[] = [];
  action: () => void = () => undefined;

  onDue(): void {
    this.runs++;
    this.action();
  }

  onCrash(error: unknown): void {
    this.crashes.push(error);
  }
}

t.test('random arming, disarming and passing of time, against a naive list', (t) => {
  const clock = new TestClock(1000);
  const action = fc.oneof(
    fc.record({ kind: fc.constantFrom('arm', 'disarm'), timer: fc.nat(7), inMs: fc.nat(50) }),
    fc.record({ kind: fc.constant('run'), timer: fc.nat(7), inMs: fc.nat(40) }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 100 }), (actions) => {
      const timers = new Timers(clock);
      const all = Array.from({ length: 8 }, () => new TestTimer());
      const due = new Map<number, number>();
      const runs = all.map(() => 0);
      for (const { kind, timer, inMs } of actions) {
        const one = all[timer];
        if (one === undefined) continue;
        if (kind === 'arm') {
          timers.armIn(one, inMs);
          due.set(timer, clock.now + inMs);
        } else if (kind === 'disarm') {
          timers.disarm(one);
          due.delete(timer);
        } else {
          clock.advance(inMs);
          timers.run();
          for (const [index, at] of due) {
            if (at > clock.now) continue;
            runs[index] = (runs[index] ?? 0) + 1;
            due.delete(index);
          }
        }
        assert.deepEqual(
          all.map((each) => each.runs),
          runs,
        );
        const next = Math.min(...due.values());
        assert.equal(timers.timeoutMs(), due.size === 0 ? -1 : Math.max(0, Math.ceil(next - clock.now)));
        all.forEach((each, i) => assert.equal(each.dueMs, due.get(i) ?? Infinity));
      }
    }),
    { numRuns: 500 },
  );
  t.end();
});

t.test('a timer that disarms and arms others while it runs', (t) => {
  const clock = new TestClock(1000);
  const timers = new Timers(clock);
  const all = Array.from({ length: 6 }, () => new TestTimer());
  const [first, second, third, fourth, fifth, sixth] = all;
  if (!first || !second || !third || !fourth || !fifth || !sixth) throw new Error('six timers');
  for (const timer of all) timers.armAt(timer, 900);
  timers.armAt(fourth, 5000);
  sixth.action = () => {
    timers.disarm(first);
    timers.armAt(second, 2000);
    timers.armAt(sixth, 1500);
  };
  timers.run();
  t.same(
    all.map(({ runs }) => runs),
    [0, 0, 1, 0, 1, 1],
  );
  t.equal(timers.timeoutMs(), 500, 'the sixth is the next');
  clock.set(1500);
  sixth.action = () => undefined;
  timers.run();
  t.equal(sixth.runs, 2);
  t.equal(timers.timeoutMs(), 500, 'then the second');
  t.end();
});

t.test('a timer that throws is told so, the others run', (t) => {
  const clock = new TestClock(1000);
  const timers = new Timers(clock);
  const all = Array.from({ length: 3 }, () => new TestTimer());
  const bug = new Error('a bug');
  for (const timer of all) timers.armAt(timer, 0);
  const [, middle] = all;
  if (middle === undefined) throw new Error('three timers');
  middle.action = () => {
    throw bug;
  };
  timers.run();
  t.same(
    all.map(({ runs }) => runs),
    [1, 1, 1],
  );
  t.same(
    all.map(({ crashes }) => crashes.length),
    [0, 1, 0],
  );
  t.equal(timers.timeoutMs(), -1);
  t.end();
});
