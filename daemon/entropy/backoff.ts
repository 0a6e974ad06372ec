// How long to wait before the next try of something that keeps failing: doubling, with an end, and never in step with
// others that failed at the same moment.

/** Waits in ms: each is random between a base and twice the base, and the base doubles. */
export class Backoff {
  private readonly firstMs: number;
  private readonly longestMs: number;
  private readonly random: () => number;
  private baseMs: number;

  /** Waits from `firstMs` to `longestMs`; `random` gives numbers from 0 to less than 1. */
  constructor(firstMs: number, longestMs: number, random: () => number = Math.random) {
    this.firstMs = firstMs;
    this.longestMs = longestMs;
    this.random = random;
    this.baseMs = firstMs;
  }

  /** The next wait; longer on the average than the one before. */
  next(): number {
    const waitMs = Math.min(this.baseMs * (1 + this.random()), this.longestMs);
    this.baseMs = Math.min(2 * this.baseMs, this.longestMs / 2);
    return waitMs;
  }

  /** It has worked: the next failure begins anew. */
  reset(): void {
    this.baseMs = this.firstMs;
  }
}
