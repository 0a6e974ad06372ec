// The statistical tests of FIPS 140-2 (with change notice 1), section 4.9.1, on blocks of 20 000 bits, and the continuous
// test on 32-bit words as rngtest does it: our own judge of what a guest read, beside rngtest's.

/** 20 000 bits. */
export const BLOCK_BYTES = 2500;

/** Ones in a block: strictly between. */
const MONOBIT = { above: 9725, below: 10275 };

/** 16/5000 times the sum of squares of the sixteen nibbles' counts, less 5000: strictly between. */
const POKER = { above: 2.16, below: 46.17 };

/** Runs of zeros, and of ones, of length 1, 2, 3, 4, 5, and 6 or more: both limits allowed. */
const RUNS: readonly (readonly [least: number, most: number])[] = [
  [2315, 2685],
  [1114, 1386],
  [527, 723],
  [240, 384],
  [103, 209],
  [103, 209],
];

/** A run of this length fails. */
const LONG_RUN = 26;

/**
 * How many failed blocks a megabyte of perfect randomness may have: a good block fails with a chance of about 0.0008, so of
 * 419 blocks six or more fail in two of a million runs. A broken source fails nearly all.
 */
export const TOLERATED_FAILURES_PER_MEBIBYTE = 5;

/** Counts the blocks of `bytes` that fail; a rest shorter than a block is not judged. */
export function countFipsFailures(bytes: Buffer): number {
  let failures = 0;
  for (let start = 0; start + BLOCK_BYTES <= bytes.length; start += BLOCK_BYTES) {
    const block = bytes.subarray(start, start + BLOCK_BYTES);
    if (!hasGoodRuns(block) || !hasGoodCounts(block) || repeatsWord(block)) failures++;
  }
  return failures;
}

function hasGoodCounts(block: Buffer): boolean {
  const counts = new Array<number>(16).fill(0);
  for (const byte of block) {
    for (const nibble of [byte >> 4, byte & 15]) counts[nibble] = (counts[nibble] ?? 0) + 1;
  }
  const ones = counts.reduce((sum, count, nibble) => sum + count * onesOf(nibble), 0);
  const poker = (16 / 5000) * counts.reduce((sum, count) => sum + count * count, 0) - 5000;
  return ones > MONOBIT.above && ones < MONOBIT.below && poker > POKER.above && poker < POKER.below;
}

function onesOf(nibble: number): number {
  return (nibble & 1) + ((nibble >> 1) & 1) + ((nibble >> 2) & 1) + ((nibble >> 3) & 1);
}

function hasGoodRuns(block: Buffer): boolean {
  const counts = [new Array<number>(6).fill(0), new Array<number>(6).fill(0)] as const;
  let longest = 0;
  let length = 0;
  let current = (block[0] ?? 0) >> 7;
  const finishRun = (): void => {
    const ofBit = current === 0 ? counts[0] : counts[1];
    const index = Math.min(length, 6) - 1;
    ofBit[index] = (ofBit[index] ?? 0) + 1;
    longest = Math.max(longest, length);
  };
  for (let position = 0; position < block.length * 8; position++) {
    // Most significant bit first, as rngtest reads them.
    const bit = ((block[position >> 3] ?? 0) >> (7 - (position & 7))) & 1;
    if (bit !== current) {
      finishRun();
      current = bit;
      length = 0;
    }
    length++;
  }
  finishRun();
  const inRange = counts.every((ofBit) =>
    RUNS.every(([least, most], index) => (ofBit[index] ?? 0) >= least && (ofBit[index] ?? 0) <= most),
  );
  return inRange && longest < LONG_RUN;
}

function repeatsWord(block: Buffer): boolean {
  for (let offset = 4; offset + 4 <= block.length; offset += 4) {
    if (block.readUInt32LE(offset) === block.readUInt32LE(offset - 4)) return true;
  }
  return false;
}
