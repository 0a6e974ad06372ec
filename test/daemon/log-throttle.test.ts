// The log throttle on a clock that the test turns.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { LogThrottle } from '../../daemon/log-throttle.js';

const WINDOW_MS = 10_000;

t.test('so many lines of a kind in a window, the rest is counted', (t) => {
  let nowMs = 5;
  t.intercept(performance, 'now', { value: () => nowMs });
  const throttle = new LogThrottle(2);
  t.same(
    [1, 2, 3, 4, 5].map(() => throttle.pass('a')),
    [0, 0, undefined, undefined, undefined],
  );
  t.equal(throttle.pass('b'), 0, 'another kind has its own count');
  nowMs += WINDOW_MS - 1;
  t.equal(throttle.pass('a'), undefined);
  nowMs += 1;
  t.same(
    [1, 2, 3].map(() => throttle.pass('a')),
    [4, 0, undefined],
    'the first line tells what is missing',
  );
  t.end();
});

t.test(
  'random kinds and times: no window of 10 s has more lines than twice the limit, and none is miscounted',
  (t) => {
    let nowMs = 0;
    t.intercept(performance, 'now', { value: () => nowMs });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.array(fc.record({ kind: fc.constantFrom('a', 'b'), waitMs: fc.nat(4000) }), { maxLength: 200 }),
        (lines, events) => {
          const throttle = new LogThrottle(lines);
          const asked = new Map<string, number>();
          const told = new Map<string, number>();
          const missing = new Map<string, number>();
          const passedAt = new Map<string, number[]>();
          for (const { kind, waitMs } of events) {
            nowMs += waitMs;
            asked.set(kind, (asked.get(kind) ?? 0) + 1);
            const suppressed = throttle.pass(kind);
            if (suppressed === undefined) {
              missing.set(kind, (missing.get(kind) ?? 0) + 1);
              continue;
            }
            told.set(kind, (told.get(kind) ?? 0) + 1 + suppressed);
            missing.set(kind, 0);
            passedAt.set(kind, [...(passedAt.get(kind) ?? []), nowMs]);
          }
          for (const [kind, count] of asked) {
            assert.equal((told.get(kind) ?? 0) + (missing.get(kind) ?? 0), count);
            const times = passedAt.get(kind) ?? [];
            for (const start of times) {
              const within = times.filter((at) => at >= start && at < start + WINDOW_MS).length;
              assert.ok(within <= 2 * lines);
            }
          }
        },
      ),
    );
    t.end();
  },
);
