// The latency of requests as the daemon can know it: from its wake-up to the guest's signal.
//
// A look at the clock costs as much as a third of a request, so only one round of the loop in some thirty is timed. The
// number is prime: a refill comes every 32 requests of 64 bytes, and a sample must not fall into step with it.

/** One round of the event loop in so many is timed. */
export const SAMPLE_EVERY = 31;
/** The first bucket ends at 1 µs, and each further one at twice the bound before it. */
const FIRST_BOUND_MS = 0.001;
/** Bounds from 1 µs to 131 ms. */
export const LATENCY_BUCKETS = 18;

/** The upper bounds of the buckets, in seconds. */
export const LATENCY_BOUNDS_SECONDS: readonly number[] = Array.from(
  { length: LATENCY_BUCKETS },
  (_, i) => (2 ** i * FIRST_BOUND_MS) / 1000,
);

/** The bucket that a latency belongs to; {@link LATENCY_BUCKETS} when it is longer than all bounds. */
export function bucketOf(latencyMs: number): number {
  let bucket = 0;
  for (let boundMs = FIRST_BOUND_MS; latencyMs > boundMs && bucket < LATENCY_BUCKETS; boundMs *= 2) bucket++;
  return bucket;
}

/** The latency below which a share of all samples lies, in seconds, interpolated within its bucket; null: no sample. */
export function quantileSeconds(counts: readonly number[], share: number): number | null {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total === 0) return null;
  let left = share * total;
  for (const [bucket, count] of counts.entries()) {
    const upper = LATENCY_BOUNDS_SECONDS[bucket];
    if (upper === undefined) break;
    if (count > 0 && left <= count) {
      const lower = LATENCY_BOUNDS_SECONDS[bucket - 1] ?? 0;
      return lower + ((upper - lower) * left) / count;
    }
    left -= count;
  }
  return LATENCY_BOUNDS_SECONDS.at(-1) ?? null;
}
