// A raw source behind its health tests: no byte leaves before its whole block, and the window after it, have passed.
//
// Data path: raw source -> staging memory -> windows of 512 bytes tested -> block of 5 windows judged -> released (conditioned,
// if the source claims less than full entropy). The
// window of delay means that what a source gave just before it went bad is dropped with the bad bytes, although an
// alarm comes late: a pattern that begins inside a window is only sure to be seen in the next one.
import { Errno, errnoName } from '../../shared-memory/errno.js';
import * as libc from '../../shared-memory/libc.js';
import { Mapping, PAGE_BYTES } from '../../shared-memory/mapping.js';
import type { OwnMemory } from '../../shared-memory/memory-region.js';
import type { Clock } from '../../shared-memory/monotonic-clock.js';
import { conditionInPlace } from './conditioning.js';
import { BLOCK_BYTES, HealthTests, Verdict, WINDOW_BYTES } from './health-tests.js';
import type { EntropySource, RawSource } from './source.js';
import type { SourceStatus, StoredState } from './source-status.js';

/** Bits in a byte. */
const FULL_ENTROPY = 8;
/** A block and the first window of the next; it fits in a page. */
const STAGED_BYTES = BLOCK_BYTES + WINDOW_BYTES;
/** A failed source is tried again after the first time, then at growing intervals up to the longest. Ours. */
const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 30_000;
/** A source that was healthy for so long begins anew with the first interval. Ours. */
const STEADY_MS = 60_000;

/** How one source is tested. */
export interface TestOptions {
  readonly spec: string;
  /** H of SP 800-90B, in bits for each byte: above 0, at most 8. */
  readonly minEntropy: number;
  /** One block of so many is scored by FIPS 140-2. */
  readonly scoreEvery: number;
}

/** Told of each change of the stored state, with a sentence. */
export type StateChange = (state: StoredState, reason: string) => void;

/** A source whose bytes have passed. Owns its raw source; used by one thread. */
export class TestedSource implements EntropySource {
  readonly spec: string;
  /** False when the memory lock limit did not allow to lock the staging memory. */
  readonly locked: boolean;
  private readonly raw: RawSource;
  private readonly options: TestOptions;
  private readonly status: SourceStatus;
  private readonly clock: Clock;
  private readonly onChange: StateChange;
  private readonly tests: HealthTests;
  private readonly mapping: Mapping;
  private readonly memory: OwnMemory;
  /** Positions in the staging memory: stored, passed window by window, released, handed out; each at most the one before. */
  private filled = 0;
  private tested = 0;
  private released = 0;
  private taken = 0;
  private blocks = 0;
  private isOpen = false;
  private hasBeenOpen = false;
  private retryAtMs = 0;
  private retryMs = FIRST_RETRY_MS;
  private healthySinceMs = Infinity;

  constructor(
    raw: RawSource,
    options: TestOptions,
    context: { readonly status: SourceStatus; readonly clock: Clock; readonly onChange: StateChange },
  ) {
    const { mapping, locked } = Mapping.forSecrets(PAGE_BYTES);
    const bytes = mapping.view(0, PAGE_BYTES);
    this.memory = {
      bytes,
      words: new Int32Array(bytes.buffer, bytes.byteOffset, PAGE_BYTES / 4),
      address: mapping.address,
    };
    this.mapping = mapping;
    this.locked = locked;
    this.spec = options.spec;
    this.raw = raw;
    this.options = options;
    this.status = context.status;
    // It may be the successor of a thread that has died: what was out for good stays so.
    if (this.status.permanent) this.retryAtMs = Infinity;
    this.clock = context.clock;
    this.onChange = context.onChange;
    this.tests = new HealthTests({ minEntropy: options.minEntropy, counts: context.status.counts });
  }

  get alarms(): number {
    return this.status.alarms;
  }

  read(address: number, length: number): number {
    if (this.released === this.taken) this.advance();
    const count = Math.min(this.released - this.taken, length);
    if (count === 0) return 0;
    // SAFETY: `count` bytes lie within the staging page at `taken`, and `length` bytes of the caller's at `address`.
    libc.memcpy(address, this.memory.address + this.taken, count);
    this.wipe(this.taken, this.taken + count);
    this.taken += count;
    return count;
  }

  /** When a source that is out is tried again, in ms of the clock; Infinity: when an operator says so. */
  get nextTryMs(): number {
    return this.retryAtMs;
  }

  /** Opens the source if it is time for that. What comes of it is in the status. */
  open(): void {
    if (!this.isOpen) this.reopen(this.now());
  }

  /** There is news of a source that is out: it is tried at once, unless it is out for good. */
  tryAgain(): void {
    if (!this.isOpen && this.retryAtMs !== Infinity) this.retryAtMs = 0;
  }

  /** One raw read, and the tests of what it brought. */
  private advance(): void {
    const nowMs = this.now();
    if (!this.isOpen && !this.reopen(nowMs)) return;
    // From here on it is waited for, also by whoever looks from another thread while the read below does not return.
    if (this.status.figure('waitingSinceMs') === 0) this.status.setFigure('waitingSinceMs', nowMs);
    this.dropTaken();
    // SAFETY: the staging page has so many bytes free at `filled`.
    const got = this.raw.read(this.memory.address + this.filled, STAGED_BYTES - this.filled);
    if (got < 0) {
      this.fail(got === -Errno.ENODATA ? 'it has come to its end' : (this.raw.failure ?? errnoName(got)));
      return;
    }
    this.filled += got;
    const verdict = this.testWindows();
    if (verdict !== Verdict.Pass) this.alarm(verdict);
    else if (this.released > this.taken) this.release();
  }

  /** Moves what is left behind a block that was handed out to the front. */
  private dropTaken(): void {
    if (this.released === 0 || this.taken < this.released) return;
    this.memory.bytes.copyWithin(0, BLOCK_BYTES, this.filled);
    this.wipe(this.filled - BLOCK_BYTES, this.filled);
    this.filled -= BLOCK_BYTES;
    this.tested -= BLOCK_BYTES;
    this.released = 0;
    this.taken = 0;
  }

  private testWindows(): Verdict {
    while (this.filled - this.tested >= WINDOW_BYTES) {
      const verdict = this.tests.testWindow(this.memory, this.tested);
      if (verdict !== Verdict.Pass) return verdict;
      this.tested += WINDOW_BYTES;
      if (this.tested === BLOCK_BYTES && !this.judgeBlock()) return this.tests.blockVerdict();
      if (this.tested === STAGED_BYTES) this.released = BLOCK_BYTES;
    }
    return Verdict.Pass;
  }

  /** True when the block may leave once the next window has passed; one that scores badly is dropped. */
  private judgeBlock(): boolean {
    if (this.blocks++ % this.options.scoreEvery !== 0) return true;
    const passes = this.tests.scoreBlock(this.memory, 0);
    // A source that claims less than full entropy cannot pass: its score is for the operator.
    if (passes || this.options.minEntropy < FULL_ENTROPY) return true;
    this.wipe(0, BLOCK_BYTES);
    this.taken = BLOCK_BYTES;
    this.released = BLOCK_BYTES;
    this.dropTaken();
    return false;
  }

  private release(): void {
    if (this.options.minEntropy < FULL_ENTROPY)
      this.released = conditionInPlace(this.memory.bytes.subarray(0, BLOCK_BYTES), this.options.minEntropy);
    this.status.refilled(this.now() - this.status.figure('waitingSinceMs'));
    this.status.setFigure('waitingSinceMs', 0);
    this.status.setFigure('releasedBytes', this.status.figure('releasedBytes') + this.released);
    if (this.status.stored === 'healthy') return;
    this.healthySinceMs = this.now();
    this.change('healthy', 'it has passed its start-up test');
  }

  private reopen(nowMs: number): boolean {
    if (this.status.takeEnable()) this.retryAtMs = 0;
    if (nowMs < this.retryAtMs) return false;
    // A driver may hang in open(2) too.
    this.status.setFigure('waitingSinceMs', nowMs);
    const why = this.raw.open();
    if (why !== undefined) {
      this.putOff(nowMs);
      if (this.status.stored !== 'failed') this.change('failed', why);
      return false;
    }
    if (this.hasBeenOpen) this.status.setFigure('reopens', this.status.figure('reopens') + 1);
    this.hasBeenOpen = true;
    this.isOpen = true;
    this.blocks = 0;
    this.tests.restart();
    this.status.setState('starting');
    return true;
  }

  /**
   * Good bytes raise a transient alarm once in 4 GiB, so a source that was healthy is taken through its start-up test at
   * once; only one that fails that too, or soon after it, has to wait.
   */
  private alarm(verdict: Verdict): void {
    const wasHealthy = this.now() - this.healthySinceMs >= FIRST_RETRY_MS;
    // What the operator said before was not said of this failure.
    this.status.takeEnable();
    this.status.raiseAlarm(verdict === Verdict.Permanent);
    this.fail(`it failed a health test: ${this.tests.reason}`);
    if (verdict === Verdict.Permanent) this.retryAtMs = Infinity;
    else if (wasHealthy) this.retryAtMs = 0;
  }

  /** Out: nothing of what is staged is used, and the device is let go until the next try. */
  private fail(reason: string): void {
    const nowMs = this.now();
    this.raw.letGo();
    this.isOpen = false;
    this.wipe(0, this.filled);
    this.filled = this.tested = this.released = this.taken = 0;
    if (nowMs - this.healthySinceMs >= STEADY_MS) this.retryMs = FIRST_RETRY_MS;
    this.healthySinceMs = Infinity;
    this.putOff(nowMs);
    this.status.setFigure('waitingSinceMs', 0);
    this.status.setFigure('failures', this.status.figure('failures') + 1);
    this.change('failed', reason);
  }

  private putOff(nowMs: number): void {
    this.retryAtMs = nowMs + this.retryMs;
    this.retryMs = Math.min(2 * this.retryMs, LONGEST_RETRY_MS);
  }

  private change(state: StoredState, reason: string): void {
    this.status.setState(state);
    this.onChange(state, reason);
  }

  private wipe(from: number, to: number): void {
    this.memory.bytes.fill(0, from, to);
  }

  private now(): number {
    this.clock.read();
    return this.clock.nowMs[0] ?? 0;
  }

  /** Wipes what waits and lets the device go. */
  close(): void {
    this.raw.close();
    this.wipe(0, PAGE_BYTES);
    this.mapping.unmap();
  }
}
