// Which limits a limiter has had, and what was delivered under each: enough to say how much can have been delivered at most
// in a time that the limiter itself no longer remembers. Only a change of the limit asks; the data path never comes here. Of the
// changes the last MAX_ERAS are told apart; what lies before them counts as delivered without a limit.
import type { Limit } from './limiter.js';
import { type Era, type LimiterMemory, MAX_ERAS, type Tally } from './limiter-memory.js';

/** Bytes that count as delivered at one moment. */
export interface Delivery {
  readonly timeMs: number;
  readonly bytes: number;
}

/** The eras of one limiter, kept in its memory too. */
export class LimitHistory {
  private readonly eras: Era[];
  private readonly memory: LimiterMemory;

  constructor(memory: LimiterMemory) {
    this.memory = memory;
    this.eras = memory.loadEras();
  }

  /** The limit as of the last change. */
  get current(): Limit | undefined {
    return this.eras.at(-1)?.limit;
  }

  /** From `startMs` on `limit` holds. */
  begin(startMs: number, limit: Limit | undefined, before: Tally): void {
    this.eras.push({ startMs, limit, before });
    if (this.eras.length > MAX_ERAS) {
      const [first] = this.eras.splice(0, 2);
      if (first !== undefined) this.eras.unshift({ ...first, limit: undefined });
    }
    this.memory.storeEras(this.eras);
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
