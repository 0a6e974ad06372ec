// The continuous health tests of one source: repetition count and adaptive proportion (NIST SP 800-90B §4.4.1, §4.4.2) over
// bytes, repeated 64-byte blocks, and a score of FIPS 140-2 blocks.
//
// Data path: what was read from a source is tested here before it is released. Good bytes are looked at a word at a time
// by screens that no bad run can pass; only where a screen hits are samples counted one by one. See docs/entropy.md.
import { passesFips } from './fips-140-2.js';
import { APT_WINDOW_SAMPLES, type Cutoffs, cutoffsFor } from './health-cutoffs.js';
import { BLOCK_WORDS, REMEMBERED_BLOCKS, RepeatedBlocks } from './repeated-blocks.js';
import type { TestedMemory } from './tested-memory.js';

export type { TestedMemory } from './tested-memory.js';

/** The window of the adaptive proportion test; a sample is a byte. */
export const WINDOW_BYTES = APT_WINDOW_SAMPLES;
export const WINDOWS_PER_BLOCK = 5;
/** A FIPS 140-2 block of 20 000 bits (2 500 bytes), rounded up to whole windows. */
export const BLOCK_BYTES = WINDOWS_PER_BLOCK * WINDOW_BYTES;
const WINDOW_WORDS = WINDOW_BYTES / 4;

/**
 * What a test says. Transient: good bytes do this about once in 2^30 tests; the source can come back by itself. Permanent: once in
 * 2^60 tests, so the source is broken. Exact chances: docs/entropy-tests.md.
 */
export const Verdict = { Pass: 0, Transient: 1, Permanent: 2 } as const;
export type Verdict = (typeof Verdict)[keyof typeof Verdict];

/** What {@link HealthTests.counts} counts, by index. */
export const HealthCount = {
  Windows: 0,
  /** Windows in which a run reached the transient cut-off or more. */
  RepetitionAlarms: 1,
  /** Windows whose first byte came as often as the transient cut-off or more. */
  AdaptiveAlarms: 2,
  /** Blocks of 64 bytes that were seen before, an alarm or not. */
  RepeatedBlocks: 3,
  FipsBlocks: 4,
  FipsFailures: 5,
  /** Windows that were judged Permanent, by whichever test. */
  PermanentAlarms: 6,
} as const;
export type HealthCount = (typeof HealthCount)[keyof typeof HealthCount];
export const HEALTH_COUNTS = Object.keys(HealthCount).length;

/** The scores of as many FIPS 140-2 blocks are remembered, as bits of a number. */
const SCORES_MASK = 0xffff;
/**
 * Failures among them that are an alarm. A good block fails with a chance p of 0.0008, so 5 of 16 do once in 2^39 blocks.
 * 4 would be once in 2^30; 8 would let a source with 51 % ones pass.
 */
const BAD_SCORES = 5;
/** Failures in a row that are an alarm, so that a broken source needs only 3 blocks: p^3 is once in 2^30.9 blocks. */
const BAD_SCORES_IN_A_ROW_MASK = 0b111;
/** No half of a word: the first of a window finds none like it before. */
const NO_HALF = -1;
/** Beyond every cut-off that can be reached, and far from where a number is no small integer to V8. */
const MAX_COUNTED_RUN = 2 ** 29;

// What gave the last alarm.
const Finding = { None: 0, Repetition: 1, Proportion: 2, RepeatedBlock: 3, Score: 4 } as const;
type Finding = (typeof Finding)[keyof typeof Finding];

/** The health tests of one stream of bytes. */
export class HealthTests {
  /** Counts since construction, by {@link HealthCount}: doubles, which need no allocation however high they go. */
  readonly counts: Float64Array;
  readonly cutoffs: Cutoffs;
  private readonly repeated = new RepeatedBlocks();
  /** The stream's last byte, and how often it came in a row; -1 and 0: the stream begins. */
  private lastByte = -1;
  private lastRun = 0;
  /** Repeated blocks in a row up to now. */
  private repeatedRun = 0;
  private scores = 0;
  /** Of the window that is tested. */
  private verdict: Verdict = Verdict.Pass;
  private finding: Finding = Finding.None;
  private found = 0;
  private foundCutoff = 0;

  /**
   * `minEntropy` is what the source claims, in bits a byte: more than 0, at most 8. Throws RangeError for any other.
   * `counts` may be shared memory of {@link HEALTH_COUNTS} numbers, for another thread to read.
   */
  constructor(options: { readonly minEntropy: number; readonly counts?: Float64Array }) {
    const { minEntropy } = options;
    if (!(minEntropy > 0 && minEntropy <= 8)) {
      throw new RangeError(
        `expected min-entropy of more than 0 and at most 8 bits a byte, got ${minEntropy}`,
      );
    }
    this.cutoffs = cutoffsFor(minEntropy, REMEMBERED_BLOCKS);
    this.counts = options.counts ?? new Float64Array(HEALTH_COUNTS);
  }

  /**
   * Tests the {@link WINDOW_BYTES} at `offset`, a multiple of 4, as the next of the stream: each window once, in order.
   * Allocates nothing.
   */
  testWindow(memory: TestedMemory, offset: number): Verdict {
    this.add(HealthCount.Windows);
    const verdict = this.judgeWindow(memory, offset);
    if (verdict === Verdict.Permanent) this.add(HealthCount.PermanentAlarms);
    return verdict;
  }

  /**
   * Judges the 2 500 bytes at `offset`, a multiple of 4, by FIPS 140-2: true when they pass. The score is kept for
   * {@link blockVerdict}. Allocates nothing.
   */
  scoreBlock(memory: TestedMemory, offset: number): boolean {
    const passed = passesFips(memory, offset);
    this.add(HealthCount.FipsBlocks);
    if (!passed) this.add(HealthCount.FipsFailures);
    this.scores = ((this.scores << 1) | (passed ? 0 : 1)) & SCORES_MASK;
    return passed;
  }

  /** Transient when so many of the last blocks failed that the source is biased or patterned. Only for a source that claims 8 bits a byte. */
  blockVerdict(): Verdict {
    const failures = bitsSet(this.scores);
    const inARow = (this.scores & BAD_SCORES_IN_A_ROW_MASK) === BAD_SCORES_IN_A_ROW_MASK;
    if (failures < BAD_SCORES && !inARow) return Verdict.Pass;
    this.finding = Finding.Score;
    this.found = failures;
    return Verdict.Transient;
  }

  /**
   * Forgets the stream and the scores, not the counts: a device was opened again, or bytes were dropped.
   * Blocks stay remembered, since a source that gives its first bytes again after it was reset must be found.
   */
  restart(): void {
    this.lastByte = -1;
    this.lastRun = 0;
    this.repeatedRun = 0;
    this.scores = 0;
  }

  /** Why the last verdict that was not Pass was given: a sentence for the log, without any byte. Empty when there was none. */
  get reason(): string {
    const { found, foundCutoff: cutoff } = this;
    switch (this.finding) {
      case Finding.None:
        return '';
      case Finding.Repetition:
        return `repetition count: ${found} equal samples in a row (cut-off ${cutoff})`;
      case Finding.Proportion:
        return `adaptive proportion: ${found} of ${WINDOW_BYTES} samples equal the first (cut-off ${cutoff})`;
      case Finding.RepeatedBlock:
        return `repeated block: ${found} blocks of 64 bytes in a row were seen before (cut-off ${cutoff})`;
      case Finding.Score:
        return `FIPS 140-2: ${found} of the last 16 blocks of 20000 bits failed (cut-off ${BAD_SCORES}, or 3 in a row)`;
    }
  }

  private judgeWindow(memory: TestedMemory, offset: number): Verdict {
    this.verdict = Verdict.Pass;
    this.testSamples(memory, offset);
    this.testRepeatedBlocks(memory.words, offset >> 2);
    return this.verdict;
  }

  /**
   * Repetition count and adaptive proportion, in one pass.
   *
   * Every run of five bytes, the least cut-off there is, holds two equal halves of words side by side, in one word or in two;
   * of windows of good bytes one in 256 does, and is counted byte by byte. Bytes that equal the first are counted in all
   * windows, without a branch on any byte. Four words at a time, since V8 loads an array's address and length for each turn.
   */
  private testSamples(memory: TestedMemory, offset: number): void {
    const { bytes, words } = memory;
    const first = offset >> 2;
    const sought = Math.imul(bytes[offset] ?? 0, 0x01010101);
    // A run that goes on from the window before is looked for by itself.
    let suspect = this.lastRun > 1 && bytes[offset] === this.lastByte;
    let before = NO_HALF;
    // Four counters of 8 bits, one for each place in a word: at most 128 each.
    let differ = 0;
    for (let at = first; at < first + WINDOW_WORDS; at += 4) {
      const w0 = words[at] ?? 0;
      const w1 = words[at + 1] ?? 0;
      const w2 = words[at + 2] ?? 0;
      const w3 = words[at + 3] ?? 0;
      const high0 = w0 >>> 16;
      const high1 = w1 >>> 16;
      const high2 = w2 >>> 16;
      const high3 = w3 >>> 16;
      if (
        hasLow(w0, high0, before) ||
        hasLow(w1, high1, high0) ||
        hasLow(w2, high2, high1) ||
        hasLow(w3, high3, high2)
      ) {
        suspect = true;
      }
      before = high3;
      differ =
        (differ + notZero(w0 ^ sought) + notZero(w1 ^ sought) + notZero(w2 ^ sought) + notZero(w3 ^ sought)) |
        0;
    }
    if (suspect) this.countRepetitions(bytes, offset);
    else this.rememberRun(bytes, offset + WINDOW_BYTES);
    const different = (differ & 0xff) + ((differ >>> 8) & 0xff) + ((differ >>> 16) & 0xff) + (differ >>> 24);
    this.judgeProportion(WINDOW_BYTES - different);
  }

  /** The run that ends a window without a suspect, at `end`: at most four bytes. */
  private rememberRun(bytes: Uint8Array, end: number): void {
    const last = bytes[end - 1] ?? 0;
    let run = 1;
    while (bytes[end - 1 - run] === last) run++;
    this.lastByte = last;
    this.lastRun = run;
  }

  private countRepetitions(bytes: Uint8Array, offset: number): void {
    let last = this.lastByte;
    let run = this.lastRun;
    let longest = 0;
    for (let at = offset; at < offset + WINDOW_BYTES; at++) {
      const byte = bytes[at] ?? 0;
      run = byte === last ? run + 1 : 1;
      last = byte;
      if (run > longest) longest = run;
    }
    this.lastByte = last;
    this.lastRun = Math.min(run, MAX_COUNTED_RUN);
    const { repetitionTransient, repetitionPermanent } = this.cutoffs;
    if (longest < repetitionTransient) return;
    this.add(HealthCount.RepetitionAlarms);
    this.alarm(Finding.Repetition, longest, repetitionTransient, repetitionPermanent);
  }

  /** `matches`: how many bytes of the window equal its first, itself included. */
  private judgeProportion(matches: number): void {
    const { proportionTransient, proportionPermanent } = this.cutoffs;
    if (matches < proportionTransient) return;
    this.add(HealthCount.AdaptiveAlarms);
    this.alarm(Finding.Proportion, matches, proportionTransient, proportionPermanent);
  }

  /** A replay is never chance, so there is no transient alarm. */
  private testRepeatedBlocks(words: Int32Array, first: number): void {
    const cutoff = this.cutoffs.repeatedBlocksPermanent;
    for (let block = first; block < first + WINDOW_WORDS; block += BLOCK_WORDS) {
      if (!this.repeated.seenBefore(words, block)) {
        this.repeatedRun = 0;
        continue;
      }
      this.add(HealthCount.RepeatedBlocks);
      this.repeatedRun = Math.min(this.repeatedRun + 1, MAX_COUNTED_RUN);
      if (this.repeatedRun >= cutoff) this.alarm(Finding.RepeatedBlock, this.repeatedRun, cutoff, cutoff);
    }
  }

  /** The worst finding of a window is its verdict and gives the reason; of two alike the first, or the longer one of its kind. */
  private alarm(finding: Finding, found: number, transient: number, permanent: number): void {
    const verdict = found >= permanent ? Verdict.Permanent : Verdict.Transient;
    if (verdict < this.verdict || (verdict === this.verdict && finding !== this.finding)) return;
    this.verdict = verdict;
    this.finding = finding;
    this.found = found;
    this.foundCutoff = verdict === Verdict.Permanent ? permanent : transient;
  }

  private add(count: HealthCount): void {
    this.counts[count] = (this.counts[count] ?? 0) + 1;
  }
}

/** True when the low half of `word` is `half` or `otherHalf`. */
function hasLow(word: number, half: number, otherHalf: number): boolean {
  const low = word & 0xffff;
  return low === half || low === otherHalf;
}

/** For each byte of `word` 1 if it is not zero: 4 counters in one number. No carry leaves its byte. */
function notZero(word: number): number {
  return ((((word & 0x7f7f7f7f) + 0x7f7f7f7f) | word) >>> 7) & 0x01010101;
}

/** How many of the low 16 bits are set. */
function bitsSet(bits: number): number {
  let count = 0;
  for (let rest = bits; rest !== 0; rest &= rest - 1) count++;
  return count;
}
