// What a test of a source comes to.
import t from 'tap';
import type { SourceTest } from '../../../daemon/ctl/source-test.js';
import { judgeSource } from '../../../daemon/ctl/source-verdict.js';

function tested(changes: Partial<SourceTest> = {}): SourceTest {
  return {
    spec: 'hwrng:/dev/hwrng',
    seconds: 5,
    bytes: 5 << 20,
    bytesPerSecond: 1 << 20,
    silentSeconds: 0,
    windows: 10_240,
    alarms: { repetition: 0, adaptive: 0, permanent: 0 },
    repeatedBlocks: 0,
    fips: { blocks: 2048, failures: 1 },
    problem: null,
    ...changes,
  };
}

/** A source that gives so many bytes a second, in blocks of 2560 as the tests let them through. */
function steady(bytesPerSecond: number, seconds = 30): SourceTest {
  const bytes = Math.floor((bytesPerSecond * seconds) / 2560) * 2560;
  return tested({
    seconds,
    bytes,
    bytesPerSecond: bytes / seconds,
    silentSeconds: ((seconds * bytesPerSecond) % 2560) / bytesPerSecond,
    windows: bytes / 512,
  });
}

await t.test('rates', (t) => {
  t.match(judgeSource(tested(), false), {
    passes: true,
    problem: null,
    suitability: 'good',
    advice: /only source/,
  });
  t.match(judgeSource(steady(10_000), false), {
    passes: true,
    suitability: 'slow',
    advice: /seed themselves/,
  });
  t.match(judgeSource(steady(600), false), { passes: true, suitability: 'slow', advice: /too slow/ });
  t.end();
});

await t.test('a slow source pauses, which is no stall', (t) => {
  for (const rate of [200, 300, 500, 900, 1300, 2600, 5200])
    t.equal(judgeSource(steady(rate, 17), false).passes, true, `${rate} B/s`);
  t.end();
});

await t.test('a stall', (t) => {
  const stalled = judgeSource(tested({ silentSeconds: 4 }), false);
  t.match(stalled, {
    passes: false,
    suitability: 'unsuitable',
    problem: /stalled: nothing has come for the last 4 s/,
  });
  t.equal(judgeSource(tested({ silentSeconds: 0.9 }), false).passes, true, 'a moment is none');
  t.end();
});

await t.test('a failed health test, and a source that cannot be opened', (t) => {
  const problem = 'it failed a health test: repetition count';
  t.match(judgeSource(tested({ problem }), false), {
    passes: false,
    problem,
    suitability: 'unsuitable',
    advice: /others may know/,
  });
  t.match(judgeSource(tested({ problem: 'EACCES', bytes: 0, windows: 0 }), false), {
    passes: false,
    problem: 'EACCES',
    advice: /cannot be used here/,
  });
  t.end();
});

await t.test('too little to tell', (t) => {
  const nothing = { bytes: 0, bytesPerSecond: 0, silentSeconds: 5 };
  t.match(judgeSource(tested({ ...nothing, windows: 3 }), false), {
    passes: false,
    suitability: 'unknown',
    problem: /3 of the 6 windows .* in 5 s/,
    advice: /--seconds/,
  });
  t.match(judgeSource(tested({ ...nothing, windows: 0, seconds: 0.25 }), false), {
    problem: /nothing.* in 250 ms/,
  });
  t.end();
});

await t.test("the kernel's generator passes whatever it knows, which is said", (t) => {
  t.match(judgeSource(tested(), true), { passes: true, advice: /a cipher/ });
  t.notMatch(judgeSource(tested(), false).advice, /cipher/);
  t.end();
});
