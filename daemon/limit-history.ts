// Which limits a limiter has had, and what was delivered under each: enough to say how much can have been delivered at most
// in a time that the limiter itself no longer remembers. Only a change of the limit asks; the data path never comes here.
import type { Limit } from './limiter.js';

/** Changes that are told apart; what lies before them counts as delivered without a limit. Ours. */
const MAX_ERAS = 16;

/** The time from one change to the next. */
interface Era {
  readonly startMs: number;
  readonly limit: Limit | undefined;
  readonly before: Tally;
}

/** What a limiter knows of its deliveries at some moment. */
export interface Tally {
  /** Bytes charged to quotas so far. */
  readonly total: number;
  /** No delivery was made later. */
  readonly lastMs: number;
}

/** Bytes that count as delivered at one moment. */
export interface Delivery {
  readonly timeMs: number;
  readonly bytes: number;
}

/** The eras of one limiter. */
export class LimitHistory {
  private readonly eras: Era[] = [];

  /** From `startMs` on `limit` holds. */
  begin(startMs: number, limit: Limit | undefined, before: Tally): void {
    this.eras.push({ startMs, limit, before });
    if (this.eras.length <= MAX_ERAS) return;
    const [first] = this.eras.splice(0, 2);
    if (first !== undefined) this.eras.unshift({ ...first, limit: undefined });
  }

  /**
   * The most that can have been delivered after `fromMs` and up to `toMs`, each era's share at its latest moment, oldest
   * first. `now`: of what was delivered up to `toMs`. Any time of length L holds at most ceil(L / period) quotas.
   */
  atMost(time: { readonly fromMs: number; readonly toMs: number }, now: Tally): Delivery[] {
    return this.eras.flatMap(({ startMs, limit, before }, i) => {
      const after = this.eras[i + 1]?.before ?? now;
      const endMs = Math.min(after.lastMs, time.toMs);
      const lengthMs = endMs - Math.max(startMs, time.fromMs);
      // A delivery may be made in the very moment in which an era ends.
      if (lengthMs < 0 || time.toMs <= time.fromMs) return [];
      const bytes = Math.max(0, after.total - before.total);
      const quotas =
        limit === undefined ? bytes : (Math.floor(lengthMs / limit.periodMs) + 1) * limit.maxBytes;
      return [{ timeMs: endMs, bytes: Math.min(bytes, quotas) }];
    });
  }
}
