// The rate limit of one device, and of the host: at most `maxBytes` in any period, charged for what was delivered.
//
// Data path: asked before a request is peeked, charged after its bytes were published. Nothing sleeps: a device
// without quota holds its requests and is looked at again when the limiter says so.
import type { Clock } from '../shared-memory/monotonic-clock.js';
import { LimitHistory } from './limit-history.js';

/** A period is divided so many times; deliveries within one part count as made at the last of them. */
const PARTS = 256;
const SLOTS = PARTS + 2;
const NO_SLOTS = new Float64Array(0);

/** A limit as the operator sets it. All are integers, `maxBytes` and `periodMs` at least 1. */
export interface Limit {
  /** Bytes in any period, and the period in ms. */
  readonly maxBytes: number;
  readonly periodMs: number;
  /** Bytes on top of that, once: taken when the quota is empty, and never renewed. */
  readonly burstBytes: number;
}

/**
 * A sliding window: each delivered byte comes back into the quota one full period after it was delivered.
 *
 * This is stricter than QEMU's timer, which gives a new quota when a period ends and so lets twice the quota pass
 * around that moment, and gives the same rate to a guest that takes all it can. Without a limit it costs next to nothing.
 */
export class Limiter {
  private readonly clock: Clock;
  private limit: Limit | undefined;
  /** The limit's numbers, for the data path. */
  private maxBytes = Infinity;
  private periodMs = 0;
  private partMs = 0;
  /** Made when there is first a limit. */
  private timeMs = NO_SLOTS;
  private bytes = NO_SLOTS;
  private oldest = 0;
  private used = 0;
  private spent = 0;
  private burstLeft = 0;
  private burstSpent = 0;
  /** Bytes charged to quotas since the limiter was made, also while there was no limit. */
  private total = 0;
  /** When bytes were last charged to a quota; not kept while there is no limit. */
  private lastMs = -Infinity;
  /** When the newest slot was opened; it takes further deliveries for one part of a period. */
  private newestOpenedMs = -Infinity;
  private readonly history: LimitHistory;

  /** `limit` undefined: none, until {@link change} sets one. */
  constructor(limit: Limit | undefined, clock: Clock) {
    this.clock = clock;
    this.history = new LimitHistory();
    this.use(limit);
    this.history.begin(this.now(), limit, { total: 0, lastMs: -Infinity });
  }

  get current(): Limit | undefined {
    return this.limit;
  }

  /** Bytes that may be delivered now, up to `most`. It looks at the clock only where that matters. */
  available(most = Number.MAX_SAFE_INTEGER): number {
    if (this.limit === undefined) return most;
    if (this.maxBytes - this.spent < most) this.expire(this.now());
    return Math.min(most, Math.max(0, this.maxBytes - this.spent) + this.burstLeft);
  }

  /** Charges `bytes` that were delivered a moment ago: to the quota, and what that does not hold to the burst. */
  charge(bytes: number): void {
    if (this.limit === undefined) {
      this.total += bytes;
      return;
    }
    const nowMs = this.now();
    this.expire(nowMs);
    const toQuota = Math.min(bytes, Math.max(0, this.maxBytes - this.spent));
    const toBurst = Math.min(bytes - toQuota, this.burstLeft);
    this.burstLeft -= toBurst;
    this.burstSpent += toBurst;
    if (bytes > toBurst) this.remember(nowMs, bytes - toBurst);
  }

  /** When at least `bytes` (no more than the limit ever allows) may be delivered, in ms of the clock; 0: now. */
  releaseMs(bytes: number): number {
    let free = this.maxBytes - this.spent;
    let releaseMs = 0;
    for (let i = 0; i < this.used && Math.max(0, free) + this.burstLeft < bytes; i++) {
      const slot = (this.oldest + i) % SLOTS;
      free += this.bytes[slot] ?? 0;
      releaseMs = (this.timeMs[slot] ?? 0) + this.periodMs;
    }
    return releaseMs;
  }

  /**
   * Sets another limit, or none, from now on. What was delivered keeps counting, so that no window of the new period holds
   * more than the new quota by what is delivered after the change; where that is no longer known to the byte, the most
   * that it can have been counts. Burst bytes that were taken stay taken.
   */
  change(limit: Limit | undefined): void {
    const nowMs = this.now();
    if (this.limit !== undefined) this.expire(nowMs);
    const deliveries = limit === undefined ? [] : this.deliveriesWithin(limit.periodMs, nowMs);
    this.history.begin(nowMs, limit, { total: this.total, lastMs: this.latestMs(nowMs) });
    this.use(limit);
    this.used = 0;
    this.spent = 0;
    this.newestOpenedMs = -Infinity;
    for (const { timeMs, bytes } of deliveries) this.enter(timeMs, bytes);
  }

  /** What has been delivered within the last `periodMs`, as late and as much as it can have been, oldest first. */
  private deliveriesWithin(periodMs: number, nowMs: number): { timeMs: number; bytes: number }[] {
    const knownFromMs = this.limit === undefined ? nowMs : nowMs - this.periodMs;
    const deliveries = this.history.atMost(
      { fromMs: nowMs - periodMs, toMs: knownFromMs },
      { total: this.total - this.spent, lastMs: this.latestMs(nowMs) },
    );
    for (let i = 0; i < this.used; i++) {
      const slot = (this.oldest + i) % SLOTS;
      deliveries.push({ timeMs: this.timeMs[slot] ?? 0, bytes: this.bytes[slot] ?? 0 });
    }
    return deliveries.filter(({ timeMs, bytes }) => bytes > 0 && nowMs - timeMs < periodMs);
  }

  /** When the last delivery can have been made. */
  private latestMs(nowMs: number): number {
    return this.limit === undefined ? nowMs : this.lastMs;
  }

  private use(limit: Limit | undefined): void {
    this.limit = limit;
    if (limit !== undefined && this.timeMs === NO_SLOTS) {
      this.timeMs = new Float64Array(SLOTS);
      this.bytes = new Float64Array(SLOTS);
    }
    this.maxBytes = limit?.maxBytes ?? Infinity;
    this.periodMs = limit?.periodMs ?? 0;
    this.partMs = this.periodMs / PARTS;
    this.burstLeft = Math.max(0, (limit?.burstBytes ?? 0) - this.burstSpent);
  }

  private now(): number {
    this.clock.read();
    return this.clock.nowMs[0] ?? 0;
  }

  private expire(nowMs: number): void {
    while (this.used > 0 && nowMs - (this.timeMs[this.oldest] ?? 0) >= this.periodMs) {
      this.spent -= this.bytes[this.oldest] ?? 0;
      this.oldest = (this.oldest + 1) % SLOTS;
      this.used--;
    }
  }

  private remember(nowMs: number, bytes: number): void {
    this.total += bytes;
    this.lastMs = nowMs;
    this.enter(nowMs, bytes);
  }

  private enter(timeMs: number, bytes: number): void {
    this.spent += bytes;
    const newest = (this.oldest + this.used - 1 + SLOTS) % SLOTS;
    const joins = this.used === SLOTS || (this.used > 0 && timeMs - this.newestOpenedMs < this.partMs);
    const slot = joins ? newest : (this.oldest + this.used) % SLOTS;
    if (!joins) {
      this.used++;
      this.newestOpenedMs = timeMs;
      this.bytes[slot] = 0;
    }
    this.bytes[slot] = (this.bytes[slot] ?? 0) + bytes;
    this.timeMs[slot] = timeMs;
  }
}
