// How long a source takes for a block: from when it is asked until the block, and the window behind it, have been read and
// tested. Counted by the thread that reads the source, in buckets of the shared status.

/** The first bucket ends at 64 µs, and each further one at four times the bound before it: up to 268 s. */
const FIRST_BOUND_MS = 0.064;
const FACTOR = 4;
export const REFILL_BUCKETS = 12;

/** The upper bounds of the buckets, in seconds. */
export const REFILL_BOUNDS_SECONDS: readonly number[] = Array.from(
  { length: REFILL_BUCKETS },
  (_, i) => (FACTOR ** i * FIRST_BOUND_MS) / 1000,
);

/** The bucket that a time belongs to; {@link REFILL_BUCKETS} when it is longer than all bounds. */
export function refillBucketOf(ms: number): number {
  let bucket = 0;
  for (let boundMs = FIRST_BOUND_MS; ms > boundMs && bucket < REFILL_BUCKETS; boundMs *= FACTOR) bucket++;
  return bucket;
}
