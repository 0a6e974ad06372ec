// What a limiter must not forget when its process ends: numbers in memory that another process can go on with. Data path:
// written with each charge. Times are CLOCK_MONOTONIC, the same in every process until the host boots.
//
// Layout, in doubles: the scalars of `Word` and the eras of limit-history.ts; and elsewhere, since a device without a limit needs
// none, the times and the bytes of the window's slots.
// A process may be killed between any two stores: what is half done is one delivery that counts a little earlier or not at all.
import type { Limit } from './limiter.js';

/** A period is divided so many times; deliveries within one part count as made at the last of them. */
export const PARTS = 256;
export const WINDOW_SLOTS = PARTS + 2;
/** Changes of the limit that are told apart. Ours. */
export const MAX_ERAS = 16;
const ERA_WORDS = 6;

/** Scalars, by place. `Used` is 1 once a limiter has been here. */
export const Word = {
  Used: 0,
  Oldest: 1,
  SlotsUsed: 2,
  BurstSpent: 3,
  Total: 4,
  LastMs: 5,
  NewestOpenedMs: 6,
  Eras: 7,
} as const;
const ERAS_AT = 8;

/** How much memory a limiter needs, in doubles: for scalars and eras, and for its window. */
export const LIMITER_STATE_WORDS = ERAS_AT + MAX_ERAS * ERA_WORDS;
export const LIMITER_SLOT_WORDS = 2 * WINDOW_SLOTS;

/** What a limiter knows of its deliveries at some moment. */
export interface Tally {
  /** Bytes charged to quotas so far. */
  readonly total: number;
  /** No delivery was made later. */
  readonly lastMs: number;
}

/** The time from one change of the limit to the next; undefined: there was none. */
export interface Era {
  readonly startMs: number;
  readonly limit: Limit | undefined;
  readonly before: Tally;
}

/** The numbers of one limiter. */
export class LimiterMemory {
  readonly scalars: Float64Array;
  readonly timeMs: Float64Array;
  readonly bytes: Float64Array;
  private readonly eras: Float64Array;

  /** Zeros, or what an earlier limiter has left. */
  constructor(
    state: Float64Array = new Float64Array(LIMITER_STATE_WORDS),
    slots: Float64Array = new Float64Array(LIMITER_SLOT_WORDS),
  ) {
    this.scalars = state.subarray(0, ERAS_AT);
    this.eras = state.subarray(ERAS_AT);
    this.timeMs = slots.subarray(0, WINDOW_SLOTS);
    this.bytes = slots.subarray(WINDOW_SLOTS);
  }

  get isUsed(): boolean {
    return this.scalars[Word.Used] === 1;
  }

  /** Keeps at most {@link MAX_ERAS}. */
  storeEras(eras: readonly Era[]): void {
    for (const [i, { startMs, limit, before }] of eras.entries()) {
      const { maxBytes = 0, periodMs = 0, burstBytes = 0 } = limit ?? {};
      this.eras.set([startMs, maxBytes, periodMs, burstBytes, before.total, before.lastMs], i * ERA_WORDS);
    }
    this.scalars[Word.Eras] = eras.length;
  }

  /** As they were stored. */
  loadEras(): Era[] {
    const count = Math.min(MAX_ERAS, this.scalars[Word.Eras] ?? 0);
    return Array.from({ length: count }, (_, i) => {
      const words = this.eras.subarray(i * ERA_WORDS, (i + 1) * ERA_WORDS);
      const [startMs = 0, maxBytes = 0, periodMs = 0, burstBytes = 0, total = 0, lastMs = 0] = words;
      const limit = maxBytes === 0 ? undefined : { maxBytes, periodMs, burstBytes };
      return { startMs, limit, before: { total, lastMs } };
    });
  }
}
