// Latency buckets and quantiles against a plain sort.
import fc from 'fast-check';
import t from 'tap';
import { SeatCounters } from '../../daemon/counters.js';
import { bucketOf, LATENCY_BOUNDS_SECONDS, LATENCY_BUCKETS, quantileSeconds } from '../../daemon/latency.js';

t.test('a latency belongs to the first bucket whose bound it does not pass', (t) => {
  t.equal(LATENCY_BOUNDS_SECONDS[0], 1e-6);
  for (const [bucket, bound] of LATENCY_BOUNDS_SECONDS.entries()) {
    t.equal(bucketOf(bound * 1000), bucket, `${bound} s`);
    t.equal(bucketOf(bound * 1000 * 1.01), bucket + 1, `a little more than ${bound} s`);
  }
  t.equal(bucketOf(0), 0);
  t.equal(bucketOf(1e9), LATENCY_BUCKETS);
  t.end();
});

t.test('without a sample there is no quantile', (t) => {
  t.equal(quantileSeconds(new Array<number>(LATENCY_BUCKETS + 1).fill(0), 0.5), null);
  t.end();
});

t.test('a quantile lies in the bucket of the sample that a sort finds', (t) => {
  const latency = fc.double({ min: 0.0005, max: 100, noNaN: true });
  const share = fc.constantFrom(0.01, 0.5, 0.9, 0.99, 1);
  fc.assert(
    fc.property(fc.array(latency, { minLength: 1, maxLength: 200 }), share, (latencies, share) => {
      const counters = new SeatCounters();
      for (const ms of latencies) counters.sampled(ms);
      const sorted = latencies.toSorted((a, b) => a - b);
      const exact = sorted[Math.ceil(share * sorted.length) - 1] ?? NaN;
      const found = quantileSeconds(counters.latencyCounts, share) ?? NaN;
      const bound = LATENCY_BOUNDS_SECONDS[bucketOf(exact)] ?? NaN;
      // Half of an ulp may put an interpolated value on either side of its bucket's edge.
      return found <= bound * (1 + 1e-9) && found >= (bound / 2) * (1 - 1e-9) - (bound === 1e-6 ? 1 : 0);
    }),
  );
  t.end();
});
