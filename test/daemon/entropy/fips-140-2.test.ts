// The block score against an independent judge, bit by bit, and against each limit of the standard.
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import t from 'tap';
import { FIPS_BLOCK_BYTES, passesFips } from '../../../daemon/entropy/fips-140-2.js';
import { countFipsFailures } from '../../support/guest/fips-140-2.js';
import { memoryOf } from '../../support/tested-memory.js';

function passes(block: Uint8Array): boolean {
  return passesFips(memoryOf(block), 0);
}

function oraclePasses(block: Uint8Array): boolean {
  return countFipsFailures(Buffer.from(block)) === 0;
}

t.test('good blocks: the same as the oracle, thousands of times, at any offset', (t) => {
  const blocks = 4000;
  const bytes = randomBytes(blocks * FIPS_BLOCK_BYTES);
  const memory = memoryOf(bytes);
  let failures = 0;
  for (let block = 0; block < blocks; block++) {
    const start = block * FIPS_BLOCK_BYTES;
    const passed = passesFips(memory, start);
    if (passed !== oraclePasses(bytes.subarray(start, start + FIPS_BLOCK_BYTES))) t.fail(`block ${block}`);
    if (!passed) failures++;
  }
  // 3.2 are expected; 30 or more come once in 10^19 runs.
  t.ok(failures < 30, `${failures} of ${blocks} good blocks failed`);
  t.end();
});

t.test('blocks that are nearly good: the same as the oracle on both sides of each limit', (t) => {
  let good = 0;
  let bad = 0;
  fc.assert(
    fc.property(spoiledBlock(), (block) => {
      const expected = oraclePasses(block);
      if (expected) good++;
      else bad++;
      return passes(block) === expected;
    }),
    { numRuns: 2000, endOnFailure: true },
  );
  t.ok(good > 200 && bad > 200, `${good} pass, ${bad} fail`);
  t.end();
});

t.test('runs of every length at every place, over bytes and at both ends', (t) => {
  const good = goodBlock();
  for (let length = 20; length <= 80; length++) {
    for (const start of [0, 1, 7, 8, 4999, 5000, 20_000 - length]) {
      for (const bit of [0, 1]) {
        const block = withRun(good, start, length, bit);
        if (passes(block) !== oraclePasses(block)) t.fail(`${length} bits of ${bit} from ${start}`);
      }
    }
  }
  t.end();
});

t.test('a long run of 25 passes and one of 26 fails', (t) => {
  const good = goodBlock();
  t.ok(passes(withRun(good, 803, 25, 1)));
  t.notOk(passes(withRun(good, 803, 26, 1)));
  t.end();
});

t.test('two equal words of 32 bits one after the other fail', (t) => {
  const block = Buffer.from(goodBlock());
  block.copy(block, 404, 400, 404);
  t.notOk(passes(block));
  t.end();
});

t.test('what is broken fails: constant, periodic, text', (t) => {
  const broken = {
    zeros: Buffer.alloc(FIPS_BLOCK_BYTES),
    ones: Buffer.alloc(FIPS_BLOCK_BYTES, 0xff),
    'bits in turn': Buffer.alloc(FIPS_BLOCK_BYTES, 0x55),
    text: Buffer.alloc(FIPS_BLOCK_BYTES, 'the quick brown fox jumps over the lazy dog. '),
  };
  for (const [name, block] of Object.entries(broken)) {
    t.notOk(oraclePasses(block), `${name}: the oracle`);
    t.notOk(passes(block), name);
  }
  t.end();
});

t.test('a counter of bytes passes, as it does the oracle: found by repeated blocks, not here', (t) => {
  const block = Uint8Array.from({ length: FIPS_BLOCK_BYTES }, (_, i) => i);
  t.ok(oraclePasses(block));
  t.ok(passes(block));
  t.end();
});

/** The standard's limits on what is counted: ones, sum of squares of nibbles' counts, runs of 0 and 1 of 1 to 6 bits. */
const LIMITS: readonly (readonly [least: number, most: number])[] = [
  [9726, 10274],
  [1563176, 1576928],
  ...[0, 1].flatMap(() => [
    [2315, 2685] as const,
    [1114, 1386] as const,
    [527, 723] as const,
    [240, 384] as const,
    [103, 209] as const,
    [103, 209] as const,
  ]),
];

/** How near to a target a count can be driven by flips of bits: sums of squares move in large steps. */
const SLACK = LIMITS.map((_, index) => (index === 1 ? 40 : 0));

t.test('each limit of the standard itself: the last count that passes and the first that fails', (t) => {
  for (const [index, [least, most]] of LIMITS.entries()) {
    const slack = SLACK[index] ?? 0;
    for (const [within, outside] of [
      [least + slack, least - 1 - slack],
      [most - slack, most + 1 + slack],
    ] as const) {
      const bits = driveTo(index, within);
      if (!passes(bytesOf(bits))) t.fail(`count ${index} is ${within}`);
      driveTo(index, outside, bits);
      if (passes(bytesOf(bits))) t.fail(`count ${index} is ${outside}`);
    }
  }
  t.end();
});

/** Counts of 20 000 bits in the order of {@link LIMITS}. */
function countsOf(bits: Uint8Array): Int32Array {
  const counts = new Int32Array(LIMITS.length);
  const nibbles = new Int32Array(16);
  const add = (to: Int32Array, index: number): unknown => (to[index] = (to[index] ?? 0) + 1);
  let length = 0;
  let nibble = 0;
  for (let at = 0; at < bits.length; at++) {
    const bit = bits[at] ?? 0;
    counts[0] = (counts[0] ?? 0) + bit;
    nibble = ((nibble << 1) | bit) & 15;
    if (at % 4 === 3) add(nibbles, nibble);
    length++;
    if (at + 1 < bits.length && bits[at + 1] === bit) continue;
    add(counts, 2 + bit * 6 + Math.min(length, 6) - 1);
    length = 0;
  }
  counts[1] = nibbles.reduce((sum, count) => sum + count * count, 0);
  return counts;
}

/** Flips bits of a good block, at random, until count `index` is `target` and every other is within its limits. */
function driveTo(index: number, target: number, bits = bitsOf(goodBlock())): Uint8Array {
  // Sums of squares move by hundreds at a flip: weighed so that the other counts are still heard.
  const costOf = (): number =>
    countsOf(bits).reduce((cost, value, other) => {
      const [least, most] = LIMITS[other] ?? [0, 0];
      const distance =
        other === index
          ? Math.max(Math.abs(value - target) - (SLACK[index] ?? 0), 0)
          : Math.max(least - value, value - most, 0);
      return cost + (other === 1 ? distance / 50 : distance);
    }, 0);
  for (let cost = costOf(), flips = 0; cost > 0; flips++) {
    if (flips === 100_000) throw new Error(`count ${index} cannot be driven to ${target}`);
    const at = Math.floor(Math.random() * bits.length);
    bits[at] = 1 - (bits[at] ?? 0);
    const next = costOf();
    if (next <= cost) cost = next;
    else bits[at] = 1 - (bits[at] ?? 0);
  }
  return bits;
}

function bitsOf(block: Uint8Array): Uint8Array {
  return Uint8Array.from(
    { length: block.length * 8 },
    (_, at) => ((block[at >> 3] ?? 0) >> (7 - (at & 7))) & 1,
  );
}

function bytesOf(bits: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(bits.length / 8);
  for (const [at, bit] of bits.entries()) bytes[at >> 3] = ((bytes[at >> 3] ?? 0) << 1) | bit;
  return bytes;
}

/** Random bytes that pass. */
function goodBlock(): Uint8Array {
  for (;;) {
    const block = randomBytes(FIPS_BLOCK_BYTES);
    // Room for a longer run: far from every limit is not needed, only not at one.
    if (oraclePasses(block) && oraclePasses(withRun(block, 803, 25, 1))) return block;
  }
}

/** A copy with `length` equal bits from bit `start`, ended on both sides by the other value. */
function withRun(block: Uint8Array, start: number, length: number, bit: number): Uint8Array {
  const copy = Uint8Array.from(block);
  const set = (at: number, value: number): void => {
    if (at < 0 || at >= copy.length * 8) return;
    const mask = 0x80 >> (at & 7);
    const byte = copy[at >> 3] ?? 0;
    copy[at >> 3] = value === 1 ? byte | mask : byte & ~mask;
  };
  for (let at = start; at < start + length; at++) set(at, bit);
  set(start - 1, 1 - bit);
  set(start + length, 1 - bit);
  return copy;
}

/** Random bytes with a small share of bits forced, some bytes overwritten by a uniform one, or a part repeated. */
function spoiledBlock(): fc.Arbitrary<Uint8Array> {
  return fc
    .record({
      seed: fc.integer(),
      forced: fc.double({ min: 0, max: 0.06, noNaN: true }),
      value: fc.constantFrom(0, 1),
      uniformBytes: fc.array(fc.tuple(fc.nat(FIPS_BLOCK_BYTES - 4), fc.integer({ min: 1, max: 4 })), {
        maxLength: 4,
      }),
      uniform: fc.constantFrom(0x00, 0xff),
    })
    .map(({ seed, forced, value, uniformBytes, uniform }) => {
      const next = randomNumbers(seed);
      const block = new Uint8Array(FIPS_BLOCK_BYTES);
      for (let at = 0; at < FIPS_BLOCK_BYTES * 8; at++) {
        const bit = next() < forced ? value : next() < 0.5 ? 0 : 1;
        block[at >> 3] = ((block[at >> 3] ?? 0) << 1) | bit;
      }
      for (const [start, count] of uniformBytes) block.fill(uniform, start, start + count);
      return block;
    });
}

/** Numbers from 0 to 1 that a seed repeats. Source: Marsaglia's xorshift, 32 bits. */
function randomNumbers(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
