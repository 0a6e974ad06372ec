// `vhost-rngctl sources test`: sources that are good, that lie, that stall or hang, and how it ends. Issue 4, point 5.
//
// Leaves out: what the health tests find (test/daemon/entropy), how a count is judged (test/daemon/ctl/source-verdict).
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import * as v from 'valibot';
import { makeBlockingDevice } from '../support/blocking-device.js';
import { type CtlOptions, type CtlRun, runCtl } from '../support/ctl-run.js';
import { makeFifo } from '../support/fifo.js';
import { goodBytes } from '../support/good-bytes.js';
import { startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { CTL, Terminal, terminalMissing } from '../support/terminal.js';

const count = v.pipe(v.number(), v.minValue(0));
const Report = v.object({
  tests: v.array(
    v.strictObject({
      spec: v.string(),
      passes: v.boolean(),
      problem: v.nullable(v.string()),
      suitability: v.picklist(['good', 'slow', 'unsuitable', 'unknown']),
      advice: v.string(),
      seconds: count,
      bytes: count,
      bytesPerSecond: count,
      silentSeconds: count,
      windows: count,
      alarms: v.strictObject({ repetition: count, adaptive: count, permanent: count }),
      repeatedBlocks: count,
      fips: v.strictObject({ blocks: count, failures: count }),
    }),
  ),
});
type Tested = v.InferOutput<typeof Report>['tests'][number];

interface SourcesRun extends CtlRun {
  readonly tests: readonly Tested[];
}

/** Nobody answers there, so nothing of a daemon is asked. */
const NOWHERE = '--control-socket=/nonexistent/control.sock';

async function test(args: readonly string[], options: CtlOptions = {}): Promise<SourcesRun> {
  const run = await runCtl([NOWHERE, '--json', 'sources', 'test', ...args], options);
  return { ...run, tests: v.parse(Report, JSON.parse(run.stdout)).tests };
}

function file(t: Test, bytes: Uint8Array): string {
  const path = join(temporaryFolder(t), 'source');
  writeFileSync(path, bytes);
  return `file:${path}`;
}

/** The same bytes again and again. */
function repeated(bytes: Buffer, times: number): Buffer {
  return Buffer.concat(Array.from({ length: times }, () => bytes));
}

/** Each bit is one only where two good ones are. */
function tooFewOnes(length: number): Buffer {
  const other = goodBytes(length, 1);
  return Buffer.from(goodBytes(length).map((byte, i) => byte & (other[i] ?? 0)));
}

await t.test('a good source passes: rate, windows, blocks', async (t) => {
  const { status, tests } = await test(['getrandom', '--seconds', '1']);
  t.equal(status, 0);
  const [tested] = tests;
  t.match(tested, { spec: 'getrandom', passes: true, problem: null, suitability: 'good', repeatedBlocks: 0 });
  t.match(tested?.alarms, { permanent: 0 });
  const { bytes = 0, seconds = 0, bytesPerSecond = 0, windows = 0, fips } = tested ?? {};
  t.ok(bytes > 100_000, `${bytes} bytes`);
  t.ok(Math.abs(bytesPerSecond - bytes / seconds) < 1, 'the rate is that of the bytes');
  t.ok(windows >= bytes / 512, 'every byte was tested before it was counted');
  t.ok((fips?.blocks ?? 0) > 0);
});

await t.test('it ends after --bytes, long before --seconds', async (t) => {
  const { status, tests, seconds } = await test(['getrandom', '--bytes', '100000', '--seconds', '600']);
  t.equal(status, 0);
  t.ok((tests[0]?.bytes ?? 0) >= 100_000);
  t.ok((tests[0]?.seconds ?? 99) < 10 && seconds < 30);
});

for (const [title, bytes, problem] of [
  ['one byte for ever', Buffer.alloc(100_000, 7), /repetition count|adaptive proportion/],
  ['the same 4 KiB again and again', repeated(goodBytes(4096), 20), /repeated block/],
  [
    'digits as text',
    Buffer.from(Array.from({ length: 20_000 }, (_, i) => String(i)).join('')),
    /health test/,
  ],
  ['too few ones', tooFewOnes(20_000), /health test/],
  [
    'good bytes that turn to nothing',
    Buffer.concat([goodBytes(50_000), Buffer.alloc(5000)]),
    /repetition count/,
  ],
] as const) {
  await t.test(`a source that lies is told: ${title}`, async (t) => {
    const { status, tests } = await test([file(t, bytes), '--seconds', '20']);
    t.equal(status, 1);
    t.match(tests[0], { passes: false, suitability: 'unsuitable', problem });
    t.ok((tests[0]?.seconds ?? 99) < 10, 'at once, not at the end of the time');
  });
}

await t.test('good bytes of a file pass while they last', async (t) => {
  const source = file(t, goodBytes(1 << 20));
  const enough = await test([source, '--bytes', '200000']);
  t.match(enough, { status: 0, tests: [{ passes: true }] });
  const all = await test([source, '--seconds', '20']);
  t.match(all, { status: 1, tests: [{ passes: false, problem: /come to its end/ }] });
});

await t.test('a source that is silent: it ends by itself, with what is known', async (t) => {
  const silent = makeFifo(t);
  const { status, signal, tests, seconds } = await test([`file:${silent.path}`, '--seconds', '2']);
  t.equal(signal, null);
  t.equal(status, 1);
  t.match(tests[0], { passes: false, suitability: 'unknown', problem: /it has given nothing/ });
  t.ok(seconds < 15, `${seconds.toFixed(1)} s`);
  const few = makeFifo(t);
  few.write(goodBytes(1600));
  const little = await test([`file:${few.path}`, '--seconds', '2']);
  t.match(little.tests[0], { passes: false, suitability: 'unknown', problem: /3 of the 6 windows/ });
});

await t.test('a source that stalls after good bytes', async (t) => {
  const fifo = makeFifo(t);
  fifo.write(goodBytes(40_960));
  const { status, tests } = await test([`file:${fifo.path}`, '--seconds', '3']);
  t.equal(status, 1);
  t.match(tests[0], { passes: false, suitability: 'unsuitable', problem: /stalled/ });
  t.ok((tests[0]?.bytes ?? 0) > 30_000, 'what has come is told');
});

for (const call of ['open', 'read'] as const) {
  await t.test(`a driver that hangs in ${call}(2): it ends by itself`, async (t) => {
    const device = await makeBlockingDevice(t, call);
    if ('missing' in device) {
      t.pass('a device that hangs', { skip: `no FUSE file system can be mounted: ${device.missing}` });
      return;
    }
    const { status, signal, tests, seconds } = await test([`file:${device.path}`, '--seconds', '2']);
    t.equal(signal, null);
    t.equal(status, 1);
    t.match(tests[0], { passes: false, bytes: 0 });
    t.ok(seconds < 15, `${seconds.toFixed(1)} s`);
  });
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  await t.test(`${signal}: what is known is printed`, async (t) => {
    const { status, tests, seconds } = await test(['getrandom', 'random', '--seconds', '600'], {
      signalAfterMs: [signal, 3000],
    });
    t.equal(status, 0);
    t.match(tests, [{ spec: 'getrandom', passes: true }]);
    t.equal(tests.length, 1, 'the next one is not begun');
    t.ok(seconds < 20, `${seconds.toFixed(1)} s`);
  });
}

await t.test('several sources: one that fails fails the run, each has its verdict', async (t) => {
  const run = await runCtl([
    NOWHERE,
    'sources',
    'test',
    'getrandom',
    'hwrng:/nonexistent/hwrng',
    '--seconds',
    '1',
  ]);
  t.equal(run.status, 1);
  t.match(
    run.stdout,
    /^getrandom: passes\n {2}.* have passed in 1\.\d s, .*\/s\n {2}SP 800-90B: .* windows/m,
  );
  t.match(run.stdout, /^hwrng:\/nonexistent\/hwrng: fails: expected to open the source .*ENOENT/m);
  t.match(run.stdout, /^ {2}FIPS 140-2: \d+ of [\d,]+ blocks fail/m);
  t.equal(run.stderr, '', 'no progress without a terminal');
});

await t.test("without a SPEC the daemon's own sources are tested", async (t) => {
  const control = join(temporaryFolder(t), 'control.sock');
  const args = [`--control-socket=${control}`, '--source=getrandom'];
  await startRngDaemon(t, { args });
  const run = await runCtl([`--control-socket=${control}`, '--json', 'sources', 'test', '--seconds', '1']);
  t.equal(run.status, 0);
  t.match(v.parse(Report, JSON.parse(run.stdout)).tests, [{ spec: 'getrandom', passes: true }]);
});

await t.test('what cannot be is refused', async (t) => {
  for (const args of [
    ['nonsense'],
    ['random', '--seconds', '0'],
    ['random', '--bytes', 'many'],
    ['hwrng:relative'],
  ]) {
    const { status, stderr } = await runCtl([NOWHERE, 'sources', 'test', ...args]);
    t.equal(status, 64, args.join(' '));
    t.match(stderr, /expected/);
  }
});

await t.test(
  'in a terminal: a line that is written over itself; Ctrl-C prints what is known',
  { skip: terminalMissing() ?? false },
  async (t) => {
    const terminal = await Terminal.start(t, { columns: 90, rows: 24 }, { NODE: process.execPath, CTL });
    terminal.type(`"$NODE" "$CTL" ${NOWHERE} sources test getrandom --seconds 600; echo ended: $?`);
    const first = await terminal.waitFor(/^getrandom +\d+\.\d of 600 s +[\d.]+ [KMG]iB +[\d.]+ MiB\/s$/m);
    const second = await terminal.waitFor((screen) => /getrandom .*\/s/.test(screen) && screen !== first);
    t.equal(second.match(/^getrandom/gm)?.length, 1, 'one line');
    terminal.press('C-c');
    const end = await terminal.waitFor(/ended: \d+\nshell> $/);
    t.match(end, /getrandom: passes\n {2}.* have passed(.*\n)*ended: 0/);
    t.notMatch(end, /of 600 s/, 'the line is gone');
  },
);

await t.test(
  'five equal bytes in a row, as good bytes have them once in 4 GiB, are counted; so early they are no chance',
  async (t) => {
    const folder = temporaryFolder(t);
    const bytes = goodBytes(4 * 2 ** 20);
    const withRunAt = (name: string, at: number): string => {
      const path = join(folder, name);
      writeFileSync(path, Buffer.from(bytes).fill(0x5a, at, at + 5));
      return `file:${path}`;
    };
    const late = await test([withRunAt('late', 3 * 2 ** 20 + 100), '--bytes', '3500000']);
    t.match(late, { status: 0, tests: [{ passes: true, alarms: { repetition: 1, permanent: 0 } }] });
    const early = await test([withRunAt('early', 5000), '--bytes', '3500000']);
    t.match(early, { status: 1, tests: [{ passes: false, problem: /5 equal samples in a row/ }] });
  },
);
