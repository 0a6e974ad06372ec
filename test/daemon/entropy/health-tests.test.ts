// The health tests against a naive second writing of them, against every kind of broken source, and on good bytes.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import t from 'tap';
import {
  BLOCK_BYTES,
  HEALTH_COUNTS,
  HealthCount,
  HealthTests,
  Verdict,
  WINDOW_BYTES,
} from '../../../daemon/entropy/health-tests.js';
import { NaiveHealth } from '../../support/naive-health.js';
import { memoryOf } from '../../support/tested-memory.js';

const MIB = 2 ** 20;

/** Pieces that streams are made of: random, few values, runs, periods, biased bits. */
const piece: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 400, size: 'max' }),
  fc
    .array(fc.constantFrom(0, 1, 0x41, 0xff), { minLength: 1, maxLength: 400, size: 'max' })
    .map((all) => Uint8Array.from(all)),
  fc
    .tuple(fc.nat(255), fc.integer({ min: 1, max: 80 }))
    .map(([byte, length]) => new Uint8Array(length).fill(byte)),
  fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 130, size: 'max' }), fc.integer({ min: 1, max: 12 }))
    .map(([period, times]) =>
      Uint8Array.from({ length: period.length * times }, (_, i) => period[i % period.length] ?? 0),
    ),
  fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 300, size: 'max' }), fc.nat(255))
    .map(([bytes, mask]) => bytes.map((byte) => byte | mask)),
);
const stream = fc
  .array(piece, { minLength: 1, maxLength: 30, size: 'max' })
  .map((pieces) => Buffer.concat(pieces));
const claims = fc.constantFrom(8, 7.5, 6, 4, 2, 1, 0.5, 0.1);

t.test('verdicts and counts are those of the naive tests, whatever the stream', (t) => {
  const verdicts = [0, 0, 0];
  let repeated = 0;
  fc.assert(
    fc.property(stream, claims, fc.nat(20), (bytes, minEntropy, restartAt) => {
      const windows = Math.floor(bytes.length / WINDOW_BYTES);
      const memory = memoryOf(bytes.subarray(0, windows * WINDOW_BYTES));
      const tests = new HealthTests({ minEntropy });
      const naive = new NaiveHealth(minEntropy);
      for (let window = 0; window < windows; window++) {
        if (window === restartAt) {
          tests.restart();
          naive.restart();
        }
        const start = window * WINDOW_BYTES;
        const blocksBefore = count(tests, HealthCount.RepeatedBlocks);
        const verdict = tests.testWindow(memory, start);
        const expected = naive.testWindow(bytes.subarray(start, start + WINDOW_BYTES));
        const newRepeats = count(tests, HealthCount.RepeatedBlocks) - blocksBefore;
        if (newRepeats > 0 && minEntropy >= 2) assert.equal(verdict, Verdict.Permanent);
        else if (newRepeats === 0) assert.equal(verdict, expected);
        else assert.ok(verdict === expected || verdict === Verdict.Permanent);
        assert.equal(
          tests.reason === '',
          verdict === Verdict.Pass && tests.reason === '',
          'a reason for an alarm',
        );
        verdicts[verdict] = (verdicts[verdict] ?? 0) + 1;
      }
      repeated += naive.repeatedBlocks;
      assert.equal(count(tests, HealthCount.Windows), windows);
      assert.equal(count(tests, HealthCount.RepetitionAlarms), naive.repetitionAlarms);
      assert.equal(count(tests, HealthCount.AdaptiveAlarms), naive.adaptiveAlarms);
      // Some hundred blocks in a table of 2 048: a few fall on each other's slot, and the very last block never does.
      assert.ok(
        count(tests, HealthCount.RepeatedBlocks) <= naive.repeatedBlocks,
        'nothing is a repeat that is none',
      );
      assert.ok(
        count(tests, HealthCount.RepeatedBlocks) >= naive.repeatedAtOnce,
        'the block before is always known',
      );
      assert.ok(count(tests, HealthCount.PermanentAlarms) >= naive.permanentAlarms);
    }),
    // Shrinking kilobytes takes many minutes; the seed that is printed repeats the failure.
    { numRuns: 500, endOnFailure: true },
  );
  t.ok(Math.min(...verdicts) > 100 && repeated > 100, `${verdicts.join(', ')} verdicts, ${repeated} repeats`);
  t.end();
});

t.test('a run of every length at every place, over the border of windows too', (t) => {
  const good = randomBytes(3 * WINDOW_BYTES);
  for (let start = WINDOW_BYTES - 12; start <= WINDOW_BYTES + 4; start++) {
    for (let length = 2; length <= 12; length++) {
      const bytes = Buffer.from(good);
      bytes.fill(0x5a, start, start + length);
      bytes[start - 1] = 0xa5;
      bytes[start + length] = 0xa5;
      const memory = memoryOf(bytes);
      const [tests, naive] = [new HealthTests({ minEntropy: 8 }), new NaiveHealth(8)];
      for (let at = 0; at < bytes.length; at += WINDOW_BYTES) {
        const verdict = tests.testWindow(memory, at);
        const expected = naive.testWindow(bytes.subarray(at, at + WINDOW_BYTES));
        if (verdict !== expected) t.fail(`${length} from ${start}, window at ${at}: ${verdict}`);
      }
    }
  }
  t.end();
});

t.test('the cut-offs themselves, one below and at', (t) => {
  for (const [length, expected] of [
    [4, Verdict.Pass],
    [5, Verdict.Transient],
    [8, Verdict.Transient],
    [9, Verdict.Permanent],
  ] as const) {
    const window = distinctBytes();
    window.fill(7, 100, 100 + length);
    t.equal(
      new HealthTests({ minEntropy: 8 }).testWindow(memoryOf(window), 0),
      expected,
      `${length} in a row`,
    );
  }
  for (const [matches, expected] of [
    [15, Verdict.Pass],
    [16, Verdict.Transient],
    [24, Verdict.Transient],
    [25, Verdict.Permanent],
  ] as const) {
    const window = distinctBytes();
    for (let i = 0; i < matches; i++) window[i * 20] = 0xee;
    t.equal(
      new HealthTests({ minEntropy: 8 }).testWindow(memoryOf(window), 0),
      expected,
      `${matches} of 512`,
    );
  }
  t.end();
});

t.test('the reason names test, figure and cut-off, and no byte', (t) => {
  const tests = new HealthTests({ minEntropy: 8 });
  t.equal(tests.reason, '');
  const run = distinctBytes();
  run.fill(7, 100, 109);
  tests.testWindow(memoryOf(run), 0);
  t.equal(tests.reason, 'repetition count: 9 equal samples in a row (cut-off 9)');
  const often = distinctBytes(1);
  for (let i = 0; i < 17; i++) often[i * 20] = 0xee;
  tests.testWindow(memoryOf(often), 0);
  t.equal(tests.reason, 'adaptive proportion: 17 of 512 samples equal the first (cut-off 16)');
  tests.testWindow(memoryOf(often), 0);
  t.equal(tests.reason, 'repeated block: 8 blocks of 64 bytes in a row were seen before (cut-off 1)');
  t.equal(count(tests, HealthCount.PermanentAlarms), 2);
  const bad = memoryOf(Buffer.alloc(BLOCK_BYTES));
  for (let i = 0; i < 3; i++) tests.scoreBlock(bad, 0);
  t.equal(tests.blockVerdict(), Verdict.Transient);
  t.equal(
    tests.reason,
    'FIPS 140-2: 3 of the last 16 blocks of 20000 bits failed (cut-off 5, or 3 in a row)',
  );
  t.end();
});

t.test('broken sources: which verdict, after how many bytes at the latest', (t) => {
  const text =
    'It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife. ';
  const page =
    '<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n';
  const read = randomBytes(2048);
  const cases: readonly { name: string; bytes: Buffer; verdict: Verdict; within: number }[] = [
    { name: 'all zero', bytes: Buffer.alloc(4096), verdict: Verdict.Permanent, within: 512 },
    { name: 'all ones', bytes: Buffer.alloc(4096, 0xff), verdict: Verdict.Permanent, within: 512 },
    {
      name: 'period of 2',
      bytes: Buffer.alloc(4096, randomBytes(2)),
      verdict: Verdict.Permanent,
      within: 512,
    },
    {
      name: 'period of 4: one word',
      bytes: Buffer.alloc(4096, randomBytes(4)),
      verdict: Verdict.Permanent,
      within: 512,
    },
    {
      name: 'period of 16',
      bytes: Buffer.alloc(4096, randomBytes(16)),
      verdict: Verdict.Permanent,
      within: 512,
    },
    {
      name: 'period of 100',
      bytes: Buffer.alloc(65536, made((i) => (i * 77) & 0xff).subarray(0, 100)),
      verdict: Verdict.Permanent,
      within: 2048,
    },
    { name: 'counter of bytes', bytes: made((i) => i), verdict: Verdict.Permanent, within: 512 },
    {
      name: 'counter of 32 bits',
      bytes: made((i) => (i >> 2) >>> (8 * (i & 3))),
      verdict: Verdict.Permanent,
      within: 1024,
    },
    { name: 'text', bytes: Buffer.alloc(8192, text), verdict: Verdict.Permanent, within: 8192 },
    { name: 'HTML page', bytes: Buffer.alloc(8192, page), verdict: Verdict.Permanent, within: 8192 },
    {
      name: 'a bit of each byte stuck',
      bytes: stuckBit(),
      verdict: Verdict.Transient,
      within: 3 * BLOCK_BYTES,
    },
    { name: '52 % ones', bytes: biased(0.52), verdict: Verdict.Transient, within: 16 * BLOCK_BYTES },
    { name: '55 % ones', bytes: biased(0.55), verdict: Verdict.Transient, within: 3 * BLOCK_BYTES },
    { name: '60 % ones', bytes: biased(0.6), verdict: Verdict.Transient, within: 3 * BLOCK_BYTES },
    {
      name: 'a read of 2 KiB again',
      bytes: Buffer.concat([read, read]),
      verdict: Verdict.Permanent,
      within: 2560,
    },
    {
      name: 'a block of 64 bytes again',
      bytes: Buffer.concat([read, read.subarray(1984), randomBytes(448)]),
      verdict: Verdict.Permanent,
      within: 2560,
    },
  ];
  for (const { name, bytes, verdict, within } of cases) {
    const found = firstAlarm(bytes);
    t.ok(
      found.verdict >= verdict && found.bytes <= within,
      `${name}: ${found.reason}, after ${found.bytes} bytes`,
    );
  }
  t.end();
});

t.test('good bytes pass: RCT, APT and blocks in a few MiB, nearly all FIPS blocks', (t) => {
  const tests = new HealthTests({ minEntropy: 8 });
  let alarms = 0;
  for (let round = 0; round < 4; round++) {
    const memory = memoryOf(randomBytes(Math.floor(MIB / BLOCK_BYTES) * BLOCK_BYTES));
    for (let block = 0; block < memory.bytes.length; block += BLOCK_BYTES) {
      for (let at = block; at < block + BLOCK_BYTES; at += WINDOW_BYTES) {
        if (tests.testWindow(memory, at) !== Verdict.Pass) alarms++;
      }
      tests.scoreBlock(memory, block);
      if (tests.blockVerdict() !== Verdict.Pass) alarms++;
    }
  }
  // A run of five comes once in 2^32 bytes, so this fails once in a thousand runs with one, never with two.
  t.ok(alarms < 2, `${alarms} alarms`);
  t.equal(count(tests, HealthCount.RepeatedBlocks), 0);
  t.ok(
    count(tests, HealthCount.FipsFailures) < 20,
    `${count(tests, HealthCount.FipsFailures)} of 1636 blocks`,
  );
  t.end();
});

t.test(
  'a replay from far: half of the last 1 024 blocks are known even then, nearly all of the last 100',
  (t) => {
    const known = (distance: number): number => {
      const tests = new HealthTests({ minEntropy: 8 });
      const once = memoryOf(randomBytes(distance * 64));
      const pass = (): void => {
        for (let at = 0; at < once.bytes.length; at += WINDOW_BYTES) tests.testWindow(once, at);
      };
      pass();
      pass();
      return count(tests, HealthCount.RepeatedBlocks) / distance;
    };
    const meanOf30 = (distance: number): number => {
      let sum = 0;
      for (let i = 0; i < 30; i++) sum += known(distance);
      return sum / 30;
    };
    // A block is forgotten when another takes its slot, one of 2 048: 0.607 and 0.95 are expected.
    const [far, near] = [meanOf30(1024), meanOf30(104)];
    t.ok(far > 0.57 && far < 0.65, `${far} at 1024`);
    t.ok(near > 0.92, `${near} at 104`);
    t.end();
  },
);

t.test('a restart forgets the run and the scores, not the counts and the blocks', (t) => {
  const tests = new HealthTests({ minEntropy: 8 });
  const end = distinctBytes();
  end.fill(7, WINDOW_BYTES - 4);
  const start = distinctBytes().reverse();
  start.fill(7, 0, 4);
  t.equal(tests.testWindow(memoryOf(end), 0), Verdict.Pass);
  tests.restart();
  t.equal(tests.testWindow(memoryOf(start), 0), Verdict.Pass, 'a run of 8 with a gap in it');
  const bad = memoryOf(Buffer.alloc(BLOCK_BYTES));
  for (let i = 0; i < 3; i++) t.notOk(tests.scoreBlock(bad, 0));
  t.equal(tests.blockVerdict(), Verdict.Transient);
  tests.restart();
  t.equal(tests.blockVerdict(), Verdict.Pass);
  t.equal(count(tests, HealthCount.FipsFailures), 3);
  t.equal(tests.testWindow(memoryOf(end), 0), Verdict.Permanent, 'the same bytes as before the reset');
  t.match(tests.reason, /^repeated block: /);
  t.end();
});

t.test('scores: five of the last sixteen, or three in a row', (t) => {
  const good = memoryOf(goodBlock());
  const bad = memoryOf(Buffer.alloc(BLOCK_BYTES));
  const verdictOf = (scores: string): Verdict => {
    const tests = new HealthTests({ minEntropy: 8 });
    for (const score of scores) tests.scoreBlock(score === 'x' ? bad : good, 0);
    return tests.blockVerdict();
  };
  t.equal(verdictOf('..xx.'), Verdict.Pass);
  t.equal(verdictOf('..xxx'), Verdict.Transient);
  t.equal(verdictOf('xxx.'), Verdict.Pass, 'four of sixteen, and the last one good');
  t.equal(verdictOf('x.x.x.x.'), Verdict.Pass);
  t.equal(verdictOf('x.x.x.x.x'), Verdict.Transient);
  t.equal(verdictOf('x.x.x.x.x.......'), Verdict.Transient, 'the first of 16 counts');
  t.equal(verdictOf('x.x.x.x.x........'), Verdict.Pass, 'the 17th is forgotten');
  t.end();
});

t.test('a claim that makes no sense is refused', (t) => {
  for (const minEntropy of [0, -1, 8.01, NaN, Infinity]) {
    t.throws(() => new HealthTests({ minEntropy }), /^expected min-entropy/, String(minEntropy));
  }
  t.end();
});

t.test('counts can be shared with another thread', (t) => {
  const counts = new Float64Array(new SharedArrayBuffer(HEALTH_COUNTS * 8));
  const tests = new HealthTests({ minEntropy: 8, counts });
  tests.testWindow(memoryOf(Buffer.alloc(WINDOW_BYTES)), 0);
  t.same([...counts], [1, 1, 1, 7, 0, 0, 1]);
  t.end();
});

function count(tests: HealthTests, index: HealthCount): number {
  return tests.counts[index] ?? 0;
}

/** Windows and blocks as the daemon tests them, up to the first alarm. */
function firstAlarm(bytes: Buffer): { verdict: Verdict; bytes: number; reason: string } {
  const tests = new HealthTests({ minEntropy: 8 });
  const memory = memoryOf(bytes);
  for (let at = 0; at + WINDOW_BYTES <= bytes.length; at += WINDOW_BYTES) {
    const end = at + WINDOW_BYTES;
    const verdict = tests.testWindow(memory, at);
    if (verdict !== Verdict.Pass) return { verdict, bytes: end, reason: tests.reason };
    if (end % BLOCK_BYTES !== 0) continue;
    tests.scoreBlock(memory, end - BLOCK_BYTES);
    const blockVerdict = tests.blockVerdict();
    if (blockVerdict !== Verdict.Pass) return { verdict: blockVerdict, bytes: end, reason: tests.reason };
  }
  return { verdict: Verdict.Pass, bytes: bytes.length, reason: 'nothing' };
}

/** A window without runs, whose bytes come two or three times each; none above 199. */
function distinctBytes(first = 0): Buffer {
  return Buffer.from(Uint8Array.from({ length: WINDOW_BYTES }, (_, i) => (first + i) % 200));
}

function made(byteAt: (index: number) => number): Buffer {
  return Buffer.from(Uint8Array.from({ length: 65536 }, (_, i) => byteAt(i)));
}

function stuckBit(): Buffer {
  return randomBytes(65536).map((byte) => byte | 0x08) as Buffer;
}

/** Bits that are one with the chance given. */
function biased(ones: number): Buffer {
  return made(() => {
    let byte = 0;
    for (let bit = 0; bit < 8; bit++) byte = (byte << 1) | (Math.random() < ones ? 1 : 0);
    return byte;
  });
}

function goodBlock(): Buffer {
  for (;;) {
    const bytes = randomBytes(BLOCK_BYTES);
    if (new HealthTests({ minEntropy: 8 }).scoreBlock(memoryOf(bytes), 0)) return bytes;
  }
}
