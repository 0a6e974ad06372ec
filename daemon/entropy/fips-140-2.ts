// The statistical tests of FIPS 140-2 (with change notice 1), §4.9.1, on a block of 20 000 bits, and a comparison of each
// 32-bit word with the one before (§4.9.2). A score of a source, beside the health tests: about 0.08 % of good blocks fail.
//
// One pass over the bytes fills two histograms: of byte values, and of how the run that ends one byte meets the run that
// begins the next. All counts follow from them by tables. Tables and histograms are constants of the module, one set for
// each thread, since V8 then needs no check of an index that is a byte. No array is taken apart in a loop: it costs 2 ns a byte.
import type { TestedMemory } from './tested-memory.js';

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
const RUN_KINDS = 2 * LONGEST_COUNTED;
/** A run of this length fails. */
const LONG_RUN = 26;

// A run that begins or ends a byte, as 4 bits: the bit's value, then a length of 1 to 7. A meeting is two of them, 8 bits.
const LENGTH_MASK = 7;
const NO_RUN = 0;
/** In place of a byte's two runs, when all its bits are equal; as the last run of a word, that it is longer than 7. */
const UNIFORM = 0x100;
const LONGER = UNIFORM >> 4;

/** Three counters of runs in one double: a block has at most 10 000 runs of a kind, and 51 bits are exact. */
const COUNTER_RANGE = 2 ** 17;
/** A set of counters, of all kinds, for each of 256 things: byte values or meetings. */
type RunTable = readonly [Float64Array, Float64Array, Float64Array, Float64Array];
const PACKED_COUNTERS = 4;

/** For each byte value its first run in the low 4 bits and its last in the next 4; most significant bit first. */
const EDGES = new Int32Array(256);
/** For each byte value the runs that neither begin nor end it. */
const INNER_RUNS = emptyTable();
/** For each meeting (last run of a byte << 4 | first run of the next) the runs that it finishes. */
const FINISHED_RUNS = emptyTable();
fillTables();

// What is counted in one block.
const valueCounts = new Int32Array(256);
const meetingCounts = new Int32Array(256);
const nibbleCounts = new Int32Array(16);
/** Runs of each kind: at first those that no table counts, of uniform bytes and the block's last, then all. */
const runCounts = new Int32Array(RUN_KINDS);
let longest = 0;
/** The run that uniform bytes go on with. */
let openBit = 0;
let openLength = 0;

/**
 * True when the {@link FIPS_BLOCK_BYTES} at `offset`, a multiple of 4, pass every test. Allocates nothing. Words are
 * little-endian, as on every processor that the daemon runs on.
 */
export function passesFips(memory: TestedMemory, offset: number): boolean {
  const distinct = countBlock(memory.words, offset >> 2);
  return distinct && longest < LONG_RUN && hasGoodNibbles() && hasGoodRuns();
}

/** Fills the histograms; false when two words in a row are equal. */
function countBlock(words: Int32Array, first: number): boolean {
  valueCounts.fill(0);
  meetingCounts.fill(0);
  runCounts.fill(0);
  longest = 0;
  let distinct = true;
  let last = NO_RUN;
  let before = ~(words[first] ?? 0);
  for (let at = first; at < first + FIPS_BLOCK_WORDS; at++) {
    const word = words[at] ?? 0;
    if (word === before) distinct = false;
    before = word;
    const v0 = word & 0xff;
    const v1 = (word >>> 8) & 0xff;
    const v2 = (word >>> 16) & 0xff;
    const v3 = word >>> 24;
    valueCounts[v0] = (valueCounts[v0] ?? 0) + 1;
    valueCounts[v1] = (valueCounts[v1] ?? 0) + 1;
    valueCounts[v2] = (valueCounts[v2] ?? 0) + 1;
    valueCounts[v3] = (valueCounts[v3] ?? 0) + 1;
    const e0 = EDGES[v0] ?? 0;
    const e1 = EDGES[v1] ?? 0;
    const e2 = EDGES[v2] ?? 0;
    const e3 = EDGES[v3] ?? 0;
    if (((e0 | e1 | e2 | e3 | (last << 4)) & UNIFORM) !== 0) {
      last = countWithUniform(word, last);
      continue;
    }
    const m0 = (last << 4) | (e0 & 15);
    const m1 = (e0 & 0xf0) | (e1 & 15);
    const m2 = (e1 & 0xf0) | (e2 & 15);
    const m3 = (e2 & 0xf0) | (e3 & 15);
    meetingCounts[m0 & 0xff] = (meetingCounts[m0 & 0xff] ?? 0) + 1;
    meetingCounts[m1] = (meetingCounts[m1] ?? 0) + 1;
    meetingCounts[m2] = (meetingCounts[m2] ?? 0) + 1;
    meetingCounts[m3] = (meetingCounts[m3] ?? 0) + 1;
    last = (e3 >> 4) & 15;
  }
  if (last === LONGER) finishRun(openBit, openLength);
  else finishRun(last >> 3, last & LENGTH_MASK);
  return distinct;
}

/** Counts the runs of a word with a uniform byte in it, or after one, bit for bit; `last` and the result as in countBlock(). */
function countWithUniform(word: number, last: number): number {
  if (last !== LONGER) {
    openBit = last >> 3;
    openLength = last & LENGTH_MASK;
  }
  for (let shift = 0; shift < 32; shift += 8) {
    const value = (word >>> shift) & 0xff;
    const edges = EDGES[value] ?? 0;
    const bit = value >> 7;
    if (bit !== openBit) {
      finishRun(openBit, openLength);
      openBit = bit;
      openLength = 0;
    }
    if (edges === UNIFORM) {
      openLength += 8;
      continue;
    }
    finishRun(bit, openLength + (edges & LENGTH_MASK));
    openBit = (edges >> 7) & 1;
    openLength = (edges >> 4) & LENGTH_MASK;
  }
  return openLength > LENGTH_MASK ? LONGER : (openBit << 3) | openLength;
}

/** A run of length 0 is none. */
function finishRun(bit: number, length: number): void {
  if (length === 0) return;
  const kind = kindOf(bit, length);
  runCounts[kind] = (runCounts[kind] ?? 0) + 1;
  if (length > longest) longest = length;
}

/** Monobit and poker tests. */
function hasGoodNibbles(): boolean {
  nibbleCounts.fill(0);
  for (let high = 0; high < 16; high++) {
    let ofHigh = 0;
    for (let low = 0; low < 16; low++) {
      const count = valueCounts[(high << 4) | low] ?? 0;
      ofHigh += count;
      nibbleCounts[low] = (nibbleCounts[low] ?? 0) + count;
    }
    nibbleCounts[high] = (nibbleCounts[high] ?? 0) + ofHigh;
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

function hasGoodRuns(): boolean {
  addRunsOf(valueCounts, INNER_RUNS);
  addRunsOf(meetingCounts, FINISHED_RUNS);
  for (let kind = 0; kind < RUN_KINDS; kind++) {
    const runs = runCounts[kind] ?? 0;
    const length = kind % LONGEST_COUNTED;
    if (runs < (RUN_LEAST[length] ?? 0) || runs > (RUN_MOST[length] ?? 0)) return false;
  }
  return true;
}

/** Adds how often each thing happened times the runs that it stands for. */
function addRunsOf(counts: Int32Array, table: RunTable): void {
  const t0 = table[0];
  const t1 = table[1];
  const t2 = table[2];
  const t3 = table[3];
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  for (let thing = 0; thing < 256; thing++) {
    const count = counts[thing] ?? 0;
    s0 += count * (t0[thing] ?? 0);
    s1 += count * (t1[thing] ?? 0);
    s2 += count * (t2[thing] ?? 0);
    s3 += count * (t3[thing] ?? 0);
  }
  unpack(s0, 0);
  unpack(s1, 1);
  unpack(s2, 2);
  unpack(s3, 3);
}

function unpack(sum: number, packed: number): void {
  let rest = sum;
  for (let kind = packed; kind < RUN_KINDS; kind += PACKED_COUNTERS) {
    const above = Math.floor(rest / COUNTER_RANGE);
    runCounts[kind] = (runCounts[kind] ?? 0) + (rest - above * COUNTER_RANGE);
    rest = above;
  }
}

/** Where a finished run of `length` bits, from 1, is counted. */
function kindOf(bit: number, length: number): number {
  return bit * LONGEST_COUNTED + Math.min(length, LONGEST_COUNTED) - 1;
}

function emptyTable(): RunTable {
  return [new Float64Array(256), new Float64Array(256), new Float64Array(256), new Float64Array(256)];
}

function addToTable(table: RunTable, thing: number, kind: number): void {
  const counters = table[kind % PACKED_COUNTERS] ?? table[0];
  counters[thing] = (counters[thing] ?? 0) + COUNTER_RANGE ** Math.floor(kind / PACKED_COUNTERS);
}

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
    for (const { bit, length } of runs.slice(1, -1)) addToTable(INNER_RUNS, value, kindOf(bit, length));
  }
  for (let meeting = 0; meeting < 256; meeting++) {
    const [lastBit, lastLength] = [meeting >> 7, (meeting >> 4) & LENGTH_MASK];
    const [nextBit, nextLength] = [(meeting >> 3) & 1, meeting & LENGTH_MASK];
    const joined = lastBit === nextBit ? lastLength : 0;
    if (joined === 0 && lastLength > 0) addToTable(FINISHED_RUNS, meeting, kindOf(lastBit, lastLength));
    if (nextLength > 0) addToTable(FINISHED_RUNS, meeting, kindOf(nextBit, nextLength + joined));
  }
}
