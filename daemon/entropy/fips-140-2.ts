// The statistical tests of FIPS 140-2 (with change notice 1), §4.9.1, on a block of 20 000 bits, and a comparison of each
// 32-bit word with the one before (§4.9.2). A score of a source, beside the health tests: about 0.08 % of good blocks fail.
//
// One pass over the bytes fills two histograms: of byte values, and of how the run that ends one byte meets the run that
// begins the next. All counts follow from them by tables.

/** 20 000 bits. */
export const FIPS_BLOCK_BYTES = 2500;
const FIPS_BLOCK_WORDS = FIPS_BLOCK_BYTES / 4;

/** Ones in a block, both limits allowed. Source: 9725 < X < 10275. */
const ONES_LEAST = 9726;
const ONES_MOST = 10274;
/** Sum of squares of the 16 nibbles' counts. Source: 2.16 < 16/5000 * sum - 5000 < 46.17. */
const SQUARES_LEAST = 1563176;
const SQUARES_MOST = 1576928;
/** Runs of zeros, and of ones, of each length, 6 meaning 6 or more; both limits allowed. */
const RUN_LEAST = [2315, 1114, 527, 240, 103, 103];
const RUN_MOST = [2685, 1386, 723, 384, 209, 209];
const LONGEST_COUNTED = RUN_LEAST.length;
/** A run of this length fails. */
const LONG_RUN = 26;

// A run that begins or ends a byte as a number of 4 bits: the bit's value, then a length of 0 to 7. 0 stands for none.
const LENGTH_MASK = 7;
const NO_RUN = 0;
/** In place of its runs, for a byte of eight equal bits. */
const UNIFORM = 0xff;
/** Two counters of runs in one number: a block has at most 20 000 runs. */
const COUNTER_BITS = 16;
const COUNTER_MASK = 0xffff;
const COUNTER_WORDS = 6;
const MEETINGS = 256;

/** Where a finished run is counted: `bit` 0 or 1, `length` from 1. */
function counterOf(bit: number, length: number): number {
  return bit * LONGEST_COUNTED + Math.min(length, LONGEST_COUNTED) - 1;
}

/** Adds to counter `index` of the packed ones that start at `at`. */
function addRuns(packed: Int32Array, at: number, index: number): void {
  packed[at + (index >> 1)] = (packed[at + (index >> 1)] ?? 0) + (1 << ((index & 1) * COUNTER_BITS));
}

/** For each byte value its first run in the low 4 bits and its last in the high 4; most significant bit first. */
const EDGES = new Uint8Array(256);
/** For each byte value the runs that neither begin nor end it, packed. */
const INNER_RUNS = new Int32Array(256 * COUNTER_WORDS);
/** For each meeting (last run of a byte << 4 | first run of the next) the runs that it finishes, packed. */
const FINISHED_RUNS = new Int32Array(MEETINGS * COUNTER_WORDS);
fillTables();

function fillTables(): void {
  for (let value = 0; value < 256; value++) {
    const runs: { bit: number; length: number }[] = [];
    for (let shift = 7; shift >= 0; shift--) {
      const bit = (value >> shift) & 1;
      const last = runs.at(-1);
      if (last?.bit === bit) last.length++;
      else runs.push({ bit, length: 1 });
    }
    const [first, last] = [runs.at(0), runs.at(-1)];
    if (first === undefined || last === undefined || runs.length === 1) {
      EDGES[value] = UNIFORM;
      continue;
    }
    EDGES[value] = (first.bit << 3) | first.length | (((last.bit << 3) | last.length) << 4);
    for (const { bit, length } of runs.slice(1, -1)) {
      addRuns(INNER_RUNS, value * COUNTER_WORDS, counterOf(bit, length));
    }
  }
  for (let meeting = 0; meeting < MEETINGS; meeting++) {
    const [lastBit, lastLength] = [meeting >> 7, (meeting >> 4) & LENGTH_MASK];
    const [nextBit, nextLength] = [(meeting >> 3) & 1, meeting & LENGTH_MASK];
    const joined = lastLength > 0 && lastBit === nextBit;
    const at = meeting * COUNTER_WORDS;
    if (lastLength > 0 && !joined) addRuns(FINISHED_RUNS, at, counterOf(lastBit, lastLength));
    if (nextLength > 0) {
      addRuns(FINISHED_RUNS, at, counterOf(nextBit, nextLength + (joined ? lastLength : 0)));
    }
  }
}

/** One judge, with its counters; one for each source, since a call uses them. */
export class FipsBlockTest {
  private readonly valueCounts = new Int32Array(256);
  private readonly meetingCounts = new Int32Array(MEETINGS);
  private readonly nibbleCounts = new Int32Array(16);
  /** Runs that the tables do not count: those of uniform bytes, and the block's last. */
  private readonly otherRuns = new Int32Array(COUNTER_WORDS);
  private readonly runCounts = new Int32Array(COUNTER_WORDS);
  private longest = 0;

  /** True when the {@link FIPS_BLOCK_BYTES} at `offset` pass every test. `offset` is a multiple of 4. Allocates nothing. */
  passes(memory: { readonly bytes: Uint8Array; readonly words: Int32Array }, offset: number): boolean {
    this.valueCounts.fill(0);
    this.meetingCounts.fill(0);
    this.otherRuns.fill(0);
    this.longest = 0;
    this.count(memory.bytes, offset);
    return (
      this.longest < LONG_RUN &&
      this.hasGoodNibbles() &&
      this.hasGoodRuns() &&
      !repeatsWord(memory.words, offset >> 2)
    );
  }

  private count(bytes: Uint8Array, offset: number): void {
    const { valueCounts, meetingCounts } = this;
    const end = offset + FIPS_BLOCK_BYTES;
    let last = NO_RUN;
    for (let at = offset; at < end; at++) {
      const value = bytes[at] ?? 0;
      valueCounts[value] = (valueCounts[value] ?? 0) + 1;
      const edges = EDGES[value] ?? 0;
      if (edges === UNIFORM) {
        at = this.countUniform(bytes, at, end, last);
        // The byte there, if there is one, has ended the long run and is counted.
        last = at < end ? (EDGES[bytes[at] ?? 0] ?? 0) >> 4 : NO_RUN;
        continue;
      }
      const meeting = (last << 4) | (edges & 15);
      meetingCounts[meeting] = (meetingCounts[meeting] ?? 0) + 1;
      last = edges >> 4;
    }
    if (last !== NO_RUN) this.finishRun(last >> 3, last & LENGTH_MASK);
  }

  /**
   * Counts from the uniform byte at `at`, whose value is already counted, to the first that is not uniform, whose place is
   * returned; `end` when the block ends before. `last` is the run that ended the byte before.
   */
  private countUniform(bytes: Uint8Array, at: number, end: number, last: number): number {
    const { valueCounts } = this;
    let bit = last >> 3;
    let length = last & LENGTH_MASK;
    for (let place = at; place < end; place++) {
      const value = bytes[place] ?? 0;
      if (place > at) valueCounts[value] = (valueCounts[value] ?? 0) + 1;
      const edges = EDGES[value] ?? 0;
      const nextBit = value >> 7;
      const nextLength = edges === UNIFORM ? 8 : edges & LENGTH_MASK;
      if (length > 0 && nextBit !== bit) {
        this.finishRun(bit, length);
        length = 0;
      }
      bit = nextBit;
      length += nextLength;
      if (edges !== UNIFORM) {
        this.finishRun(bit, length);
        return place;
      }
    }
    this.finishRun(bit, length);
    return end;
  }

  private finishRun(bit: number, length: number): void {
    addRuns(this.otherRuns, 0, counterOf(bit, length));
    if (length > this.longest) this.longest = length;
  }

  /** Monobit and poker tests. */
  private hasGoodNibbles(): boolean {
    const { valueCounts, nibbleCounts } = this;
    nibbleCounts.fill(0);
    for (let value = 0; value < 256; value++) {
      const count = valueCounts[value] ?? 0;
      nibbleCounts[value >> 4] = (nibbleCounts[value >> 4] ?? 0) + count;
      nibbleCounts[value & 15] = (nibbleCounts[value & 15] ?? 0) + count;
    }
    let ones = 0;
    let squares = 0;
    for (let nibble = 0; nibble < 16; nibble++) {
      const count = nibbleCounts[nibble] ?? 0;
      ones += count * ((nibble & 1) + ((nibble >> 1) & 1) + ((nibble >> 2) & 1) + (nibble >> 3));
      squares += count * count;
    }
    return ones >= ONES_LEAST && ones <= ONES_MOST && squares >= SQUARES_LEAST && squares <= SQUARES_MOST;
  }

  private hasGoodRuns(): boolean {
    const { runCounts } = this;
    runCounts.set(this.otherRuns);
    addProducts(runCounts, this.valueCounts, INNER_RUNS);
    addProducts(runCounts, this.meetingCounts, FINISHED_RUNS);
    for (let index = 0; index < 2 * LONGEST_COUNTED; index++) {
      const runs = ((runCounts[index >> 1] ?? 0) >>> ((index & 1) * COUNTER_BITS)) & COUNTER_MASK;
      const length = index % LONGEST_COUNTED;
      if (runs < (RUN_LEAST[length] ?? 0) || runs > (RUN_MOST[length] ?? 0)) return false;
    }
    return true;
  }
}

/** To each packed counter adds how often a thing happened times the runs that it stands for. */
function addProducts(sums: Int32Array, counts: Int32Array, packed: Int32Array): void {
  let [s0, s1, s2] = [sums[0] ?? 0, sums[1] ?? 0, sums[2] ?? 0];
  let [s3, s4, s5] = [sums[3] ?? 0, sums[4] ?? 0, sums[5] ?? 0];
  for (let thing = 0, at = 0; thing < 256; thing++, at += COUNTER_WORDS) {
    const count = counts[thing] ?? 0;
    s0 = (s0 + Math.imul(count, packed[at] ?? 0)) | 0;
    s1 = (s1 + Math.imul(count, packed[at + 1] ?? 0)) | 0;
    s2 = (s2 + Math.imul(count, packed[at + 2] ?? 0)) | 0;
    s3 = (s3 + Math.imul(count, packed[at + 3] ?? 0)) | 0;
    s4 = (s4 + Math.imul(count, packed[at + 4] ?? 0)) | 0;
    s5 = (s5 + Math.imul(count, packed[at + 5] ?? 0)) | 0;
  }
  sums[0] = s0;
  sums[1] = s1;
  sums[2] = s2;
  sums[3] = s3;
  sums[4] = s4;
  sums[5] = s5;
}

function repeatsWord(words: Int32Array, first: number): boolean {
  let before = words[first] ?? 0;
  for (let at = first + 1; at < first + FIPS_BLOCK_WORDS; at++) {
    const word = words[at] ?? 0;
    if (word === before) return true;
    before = word;
  }
  return false;
}
