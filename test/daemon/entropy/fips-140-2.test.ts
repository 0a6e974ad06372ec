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
    { numRuns: 3000 },
  );
  t.ok(good > 300 && bad > 300, `${good} pass, ${bad} fail`);
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
