// The rate limit of one device: at most `maxBytes` in any period, charged for what was delivered.
//
// Data path: asked before a request is peeked, charged after its bytes were published. Nothing sleeps: a device
// without quota holds its requests and is looked at again when the limiter says so.
import type { Clock } from '../shared-memory/monotonic-clock.js';

/** A period is divided so many times; deliveries within one part count as made at the last of them. */
const PARTS = 256;
const SLOTS = PARTS + 2;

/**
 * A sliding window: each delivered byte comes back into the quota one full period after it was delivered.
 *
 * This is stricter than QEMU's timer, which gives a new quota when a period ends and so lets twice the quota pass
 * around that moment, and gives the same rate to a guest that takes all it can.
 */
export class Limiter {
  readonly maxBytes: number;
  readonly periodMs: number;
  private readonly clock: Clock;
  private readonly partMs: number;
  private readonly timeMs = new Float64Array(SLOTS);
  private readonly bytes = new Float64Array(SLOTS);
  private oldest = 0;
  private used = 0;
  private spent = 0;
  /** When the newest slot was opened; it takes further deliveries for one part of a period. */
  private newestOpenedMs = -Infinity;

  /** `maxBytes` and `periodMs` are at least 1. */
  constructor(maxBytes: number, periodMs: number, clock: Clock) {
    this.maxBytes = maxBytes;
    this.periodMs = periodMs;
    this.clock = clock;
    this.partMs = periodMs / PARTS;
  }

  /** Bytes that may be delivered now. */
  available(): number {
    this.clock.read();
    const nowMs = this.clock.nowMs[0] ?? 0;
    while (this.used > 0 && nowMs - (this.timeMs[this.oldest] ?? 0) >= this.periodMs) {
      this.spent -= this.bytes[this.oldest] ?? 0;
      this.oldest = (this.oldest + 1) % SLOTS;
      this.used--;
    }
    return this.maxBytes - this.spent;
  }

  /** Charges `bytes` that were delivered a moment ago. */
  charge(bytes: number): void {
    this.clock.read();
    const nowMs = this.clock.nowMs[0] ?? 0;
    this.spent += bytes;
    const newest = (this.oldest + this.used - 1 + SLOTS) % SLOTS;
    const joins = this.used === SLOTS || (this.used > 0 && nowMs - this.newestOpenedMs < this.partMs);
    const slot = joins ? newest : (this.oldest + this.used) % SLOTS;
    if (!joins) {
      this.used++;
      this.newestOpenedMs = nowMs;
      this.bytes[slot] = 0;
    }
    this.bytes[slot] = (this.bytes[slot] ?? 0) + bytes;
    this.timeMs[slot] = nowMs;
  }

  /** When bytes come back next, in ms on the same clock; Infinity when all quota is free. */
  nextReleaseMs(): number {
    return this.used === 0 ? Infinity : (this.timeMs[this.oldest] ?? 0) + this.periodMs;
  }
}
