// What is known of one source, in memory that every thread reads and one thread writes: the one that reads the source.
//
// The main thread shows it to the operator and logs what changes, without asking a thread that may be blocked in a
// driver. Reasons are sentences and come by message (source-watch.ts).

import { HEALTH_COUNTS } from './health-tests.js';
import { REFILL_BUCKETS, refillBucketOf } from './refill-times.js';

/** What a source is fit for; each thread sees the same. */
export type SourceState = 'starting' | 'healthy' | 'slow' | 'failed';

/** `slow` is not stored: it is what a source is that keeps its reader waiting, and a blocked reader cannot say so. */
const STORED_STATES = ['starting', 'healthy', 'failed'] as const satisfies readonly SourceState[];
export type StoredState = (typeof STORED_STATES)[number];

/** A source that gives nothing for so long, while bytes are wanted of it, is slow. */
export const SLOW_AFTER_MS = 1000;

/** Words of 32 bits. `Enable` is the main thread's: an operator ends a permanent failure. */
const Word = { State: 0, Alarms: 1, Permanent: 2, Enable: 3 } as const;
const WORDS_BYTES = 4 * Object.keys(Word).length;

/** Numbers behind the words, in this order; behind them what the health tests count. */
const FIGURES = ['waitingSinceMs', 'releasedBytes', 'failures', 'reopens', 'refillSumMs'] as const;
export type SourceFigure = (typeof FIGURES)[number];
const COUNTS_OFFSET = WORDS_BYTES + 8 * FIGURES.length;

const REFILLS_OFFSET = COUNTS_OFFSET + 8 * HEALTH_COUNTS;
/** One more for what is longer than the last bound. */
const REFILL_COUNTS = REFILL_BUCKETS + 1;
const STATUS_BYTES = REFILLS_OFFSET + 8 * REFILL_COUNTS;

/** One source's status. The thread that reads the source calls the methods that change it. */
export class SourceStatus {
  readonly place: SharedArrayBuffer;
  private readonly words: Int32Array;
  private readonly figures: Float64Array;
  /** By `HealthCount`. */
  readonly counts: Float64Array;
  /** Blocks by how long they took; see refill-times.ts. */
  readonly refills: Float64Array;

  /** Over a place of another thread's, or a new one. */
  constructor(place: SharedArrayBuffer = new SharedArrayBuffer(STATUS_BYTES)) {
    this.place = place;
    this.words = new Int32Array(place, 0, WORDS_BYTES / 4);
    this.figures = new Float64Array(place, WORDS_BYTES, FIGURES.length);
    this.counts = new Float64Array(place, COUNTS_OFFSET, HEALTH_COUNTS);
    this.refills = new Float64Array(place, REFILLS_OFFSET, REFILL_COUNTS);
  }

  /** As stored; see {@link stateAt} for what an operator is told. */
  get stored(): StoredState {
    return STORED_STATES[Atomics.load(this.words, Word.State)] ?? 'failed';
  }

  /** The state at `nowMs` of the monotonic clock. */
  stateAt(nowMs: number): SourceState {
    const since = this.figure('waitingSinceMs');
    return this.stored !== 'failed' && since > 0 && nowMs - since >= SLOW_AFTER_MS ? 'slow' : this.stored;
  }

  /** Health tests that have failed: what waits of this source's bytes is to be dropped when this has changed. */
  get alarms(): number {
    return Atomics.load(this.words, Word.Alarms);
  }

  /** True while only an operator can bring the source back. */
  get permanent(): boolean {
    return Atomics.load(this.words, Word.Permanent) !== 0;
  }

  figure(name: SourceFigure): number {
    return this.figures[FIGURES.indexOf(name)] ?? 0;
  }

  setFigure(name: SourceFigure, value: number): void {
    this.figures[FIGURES.indexOf(name)] = value;
  }

  /** A block took so long. */
  refilled(ms: number): void {
    const bucket = refillBucketOf(ms);
    this.refills[bucket] = (this.refills[bucket] ?? 0) + 1;
    this.setFigure('refillSumMs', this.figure('refillSumMs') + ms);
  }

  setState(state: StoredState): void {
    Atomics.store(this.words, Word.State, STORED_STATES.indexOf(state));
  }

  /** A health test has failed. Comes before any byte that the source gives later. */
  raiseAlarm(permanent: boolean): void {
    Atomics.store(this.words, Word.Permanent, permanent ? 1 : 0);
    Atomics.add(this.words, Word.Alarms, 1);
  }

  /** The operator's word: a source that has failed is tried again at once. The main thread's only change. */
  enable(): void {
    Atomics.store(this.words, Word.Enable, 1);
  }

  /** True once after {@link enable}; a permanent failure is forgotten. */
  takeEnable(): boolean {
    if (Atomics.exchange(this.words, Word.Enable, 0) === 0) return false;
    Atomics.store(this.words, Word.Permanent, 0);
    return true;
  }
}
