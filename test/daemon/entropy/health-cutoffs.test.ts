// The cut-offs against published tables and against exact arithmetic on integers.
import t from 'tap';
import {
  cutoffsFor,
  proportionCutoff,
  repeatedBlocksCutoff,
  repetitionCutoff,
} from '../../../daemon/entropy/health-cutoffs.js';

t.test('repetition count: SP 800-90B §4.4.1', (t) => {
  // The standard's own example, then those of Linux's jitterentropy for 1/osr bits (30 and 60 times osr, plus the first), then
  // the figures of this project's design for 8 bits.
  const known = [
    { minEntropy: 2, alphaLog2: -20, cutoff: 11 },
    { minEntropy: 1, alphaLog2: -30, cutoff: 31 },
    { minEntropy: 1 / 3, alphaLog2: -60, cutoff: 181 },
    { minEntropy: 8, alphaLog2: -30, cutoff: 5 },
    { minEntropy: 8, alphaLog2: -60, cutoff: 9 },
  ];
  for (const { minEntropy, alphaLog2, cutoff } of known) {
    t.equal(repetitionCutoff(minEntropy, alphaLog2), cutoff, `H = ${minEntropy}, alpha = 2^${alphaLog2}`);
  }
  t.end();
});

t.test('adaptive proportion: the examples of SP 800-90B §4.4.2, table 2, alpha = 2^-20', (t) => {
  const binary = { 0.2: 941, 0.4: 840, 0.6: 748, 0.8: 664, 1: 589 };
  for (const [minEntropy, cutoff] of Object.entries(binary)) {
    t.equal(proportionCutoff(1024, Number(minEntropy), -20), cutoff, `W = 1024, H = ${minEntropy}`);
  }
  const bytes = { 0.5: 410, 1: 311, 2: 177, 4: 62, 8: 13 };
  for (const [minEntropy, cutoff] of Object.entries(bytes)) {
    t.equal(proportionCutoff(512, Number(minEntropy), -20), cutoff, `W = 512, H = ${minEntropy}`);
  }
  t.end();
});

t.test("adaptive proportion: near the tables of Linux's jitterentropy for 1/osr bits", (t) => {
  // crypto/jitterentropy.c, jent_apt_cutoff_lookup and jent_apt_cutoff_permanent_lookup. They use a corrected formula,
  // 2 + CRITBINOM(511, ...), since the first sample always equals itself: at most one more than the standard's.
  const transient = [325, 422, 459, 477, 488, 494, 499, 502, 505, 507, 508, 509, 510, 511, 512];
  const permanent = [355, 447, 479, 494, 502, 507, 510, 512, 512, 512, 512, 512, 512, 512, 512];
  const differing: string[] = [];
  for (const [alphaLog2, table] of [
    [-30, transient],
    [-60, permanent],
  ] as const) {
    for (const [index, theirs] of table.entries()) {
      const ours = proportionCutoff(512, 1 / (index + 1), alphaLog2);
      t.ok(ours === theirs || ours === theirs - 1, `osr ${index + 1}: ${ours}, ${theirs}`);
      if (ours !== theirs) differing.push(`osr ${index + 1}, 2^${alphaLog2}`);
    }
  }
  t.same(differing, ['osr 3, 2^-30', 'osr 5, 2^-30']);
  t.end();
});

t.test('adaptive proportion: equal to exact arithmetic for whole bits', (t) => {
  for (let minEntropy = 1; minEntropy <= 8; minEntropy++) {
    for (const alphaLog2 of [-20, -30, -40, -60]) {
      const ours = proportionCutoff(512, minEntropy, alphaLog2);
      t.equal(ours, exactCutoff(512, minEntropy, -alphaLog2), `H = ${minEntropy}, alpha = 2^${alphaLog2}`);
    }
  }
  t.end();
});

t.test('for 8 bits a byte: the figures of the design', (t) => {
  t.same(cutoffsFor(8, 1024), {
    repetitionTransient: 5,
    repetitionPermanent: 9,
    proportionTransient: 16,
    proportionPermanent: 25,
    repeatedBlocksPermanent: 1,
  });
  t.end();
});

t.test('for less than 8 bits: never lower, permanent never below transient, always reachable', (t) => {
  let before = cutoffsFor(8, 2048);
  for (let minEntropy = 7.95; minEntropy > 0.01; minEntropy -= 0.05) {
    const now = cutoffsFor(minEntropy, 2048);
    for (const name of Object.keys(now) as (keyof typeof now)[]) {
      if (now[name] < before[name]) t.fail(`${name} at ${minEntropy}: ${now[name]} after ${before[name]}`);
    }
    if (now.repetitionPermanent < now.repetitionTransient) t.fail(`repetition at ${minEntropy}`);
    if (now.proportionPermanent < now.proportionTransient) t.fail(`proportion at ${minEntropy}`);
    if (now.proportionPermanent > 512)
      t.fail(`a window cannot hold ${now.proportionPermanent} at ${minEntropy}`);
    before = now;
  }
  t.equal(proportionCutoff(512, 0.05, -60), 512, 'as many as there are');
  t.end();
});

t.test('repeated blocks: as many in a row as make 2^-60', (t) => {
  // A block equals one of 2^11 others with a chance of 2^(11-64H).
  t.equal(repeatedBlocksCutoff(8, 2048), 1);
  t.equal(repeatedBlocksCutoff(71 / 64, 2048), 1, '2^-60');
  t.equal(repeatedBlocksCutoff(70 / 64, 2048), 2, '2^-59, so two');
  t.equal(repeatedBlocksCutoff(0.5, 2048), 3, '2^-21 three times');
  t.equal(repeatedBlocksCutoff(0.1, 2048), Infinity, 'by chance');
  t.end();
});

/** 1 + CRITBINOM(samples, 2^-bits, 1 - 2^-alphaBits) in whole numbers: all multiplied by 2^(bits * samples + alphaBits). */
function exactCutoff(samples: number, bits: number, alphaBits: number): number {
  const misses = 2n ** BigInt(bits) - 1n;
  const alpha = 2n ** BigInt(bits * samples);
  let ways = 1n;
  let tail = 0n;
  for (let matches = samples; matches >= 0; matches--) {
    tail += ways * misses ** BigInt(samples - matches);
    if (tail << BigInt(alphaBits) > alpha) return 1 + matches;
    ways = (ways * BigInt(matches)) / BigInt(samples - matches + 1);
  }
  return 1;
}
