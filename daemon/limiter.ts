// The rate limit of one device, and of the host: at most `maxBytes` in any period, charged for what was delivered.
//
// Data path: asked before a request is peeked, charged after its bytes were published. Nothing sleeps: a device
// without quota holds its requests and is looked at again when the limiter says so.
import type { Clock } from '../shared-memory/monotonic-clock.js';
import { LimitHistory } from './limit-history.js';
import { LimiterMemory, PARTS, WINDOW_SLOTS as SLOTS, Word } from './limiter-memory.js';

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
  private readonly memory: LimiterMemory;
  /** What lies in the memory, by place; the window's slots lie there too. */
  private readonly words: Float64Array;
  private readonly timeMs: Float64Array;
  private readonly bytes: Float64Array;
  /** The sum of the window's slots. */
  private spent = 0;
  private burstLeft = 0;
  private readonly history: LimitHistory;

  /**
   * `limit` undefined: none, until {@link change} sets one. `memory`: where it keeps what it must not forget; what
   * another limiter has left there goes on counting.
   */
  constructor(limit: Limit | undefined, clock: Clock, memory = new LimiterMemory()) {
    this.clock = clock;
    this.memory = memory;
    this.words = this.memory.scalars;
    this.timeMs = this.memory.timeMs;
    this.bytes = this.memory.bytes;
    this.history = new LimitHistory(this.memory);
    if (this.memory.isUsed) this.goOn(limit);
    else this.begin(limit);
  }

  private begin(limit: Limit | undefined): void {
    this.words[Word.LastMs] = -Infinity;
    this.words[Word.NewestOpenedMs] = -Infinity;
    this.use(limit);
    this.history.begin(this.now(), limit, { total: 0, lastMs: -Infinity });
    this.words[Word.Used] = 1;
  }

  private goOn(limit: Limit | undefined): void {
    const before = this.history.current;
    this.use(before);
    for (let i = 0; i < this.used; i++) this.spent += this.bytes[(this.oldest + i) % SLOTS] ?? 0;
    if (!isSame(before, limit)) this.change(limit);
  }

  private get oldest(): number {
    return this.words[Word.Oldest] ?? 0;
  }

  private get used(): number {
    return this.words[Word.SlotsUsed] ?? 0;
  }

  /** Bytes charged to quotas since there is this memory, also while there was no limit. */
  private get total(): number {
    return this.words[Word.Total] ?? 0;
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
      this.words[Word.Total] = this.total + bytes;
      return;
    }
    const nowMs = this.now();
    this.expire(nowMs);
    const toQuota = Math.min(bytes, Math.max(0, this.maxBytes - this.spent));
    const toBurst = Math.min(bytes - toQuota, this.burstLeft);
    this.burstLeft -= toBurst;
    if (toBurst > 0) this.words[Word.BurstSpent] = this.burstSpent + toBurst;
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
    this.words[Word.SlotsUsed] = 0;
    this.spent = 0;
    this.words[Word.NewestOpenedMs] = -Infinity;
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
    return this.limit === undefined ? nowMs : (this.words[Word.LastMs] ?? nowMs);
  }

  private get burstSpent(): number {
    return this.words[Word.BurstSpent] ?? 0;
  }

  private use(limit: Limit | undefined): void {
    this.limit = limit;
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
      this.words[Word.Oldest] = (this.oldest + 1) % SLOTS;
      this.words[Word.SlotsUsed] = this.used - 1;
    }
  }

  private remember(nowMs: number, bytes: number): void {
    this.words[Word.Total] = this.total + bytes;
    this.words[Word.LastMs] = nowMs;
    this.enter(nowMs, bytes);
  }

  private enter(timeMs: number, bytes: number): void {
    this.spent += bytes;
    const { oldest, used } = this;
    const newest = (oldest + used - 1 + SLOTS) % SLOTS;
    const openedMs = this.words[Word.NewestOpenedMs] ?? timeMs;
    const joins = used === SLOTS || (used > 0 && timeMs - openedMs < this.partMs);
    const slot = joins ? newest : (oldest + used) % SLOTS;
    this.timeMs[slot] = timeMs;
    this.bytes[slot] = bytes + (joins ? (this.bytes[slot] ?? 0) : 0);
    if (joins) return;
    this.words[Word.NewestOpenedMs] = timeMs;
    this.words[Word.SlotsUsed] = used + 1;
  }
}

function isSame(one: Limit | undefined, other: Limit | undefined): boolean {
  return (
    one?.maxBytes === other?.maxBytes &&
    one?.periodMs === other?.periodMs &&
    one?.burstBytes === other?.burstBytes
  );
}
