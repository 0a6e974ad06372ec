// Waits between tries: within their range, longer each time, random, and from the beginning after a success.
import fc from 'fast-check';
import t from 'tap';
import { Backoff } from '../../../daemon/entropy/backoff.js';

t.test('from 0.1 s to 30 s: each wait lies between a base and twice the base, which doubles', (t) => {
  const shortest = new Backoff(100, 30_000, () => 0);
  const waits = Array.from({ length: 10 }, () => shortest.next());
  t.same(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 15_000, 15_000]);
  const longest = new Backoff(100, 30_000, () => 1 - Number.EPSILON);
  const bounds = Array.from({ length: 10 }, () => Math.round(longest.next()));
  t.same(bounds, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
  shortest.reset();
  t.equal(shortest.next(), 100);
  t.end();
});

t.test('never out of the range, whatever it is', (t) => {
  const range = fc.tuple(fc.integer({ min: 1, max: 1000 }), fc.integer({ min: 1, max: 1000 }));
  fc.assert(
    fc.property(range, ([firstMs, factor]) => {
      const backoff = new Backoff(firstMs, 2 * firstMs * factor);
      return Array.from({ length: 20 }, () => backoff.next()).every(
        (wait) => wait >= firstMs && wait <= 2 * firstMs * factor,
      );
    }),
  );
  const backoff = new Backoff(1000, 1000);
  t.ok(new Set(Array.from({ length: 20 }, () => new Backoff(1000, 9000).next())).size > 10, 'random');
  t.ok(backoff.next() <= 1000);
  t.end();
});
