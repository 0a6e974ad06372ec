// A source behind its tests: when bytes are released, what is wiped, which failures lead where and for how long.
import { constants } from 'node:os';
import t from 'tap';
import { inputBytesFor } from '../../../daemon/entropy/conditioning.js';
import { BLOCK_BYTES, HealthCount, WINDOW_BYTES } from '../../../daemon/entropy/health-tests.js';
import { SourceStatus } from '../../../daemon/entropy/source-status.js';
import { TestedSource } from '../../../daemon/entropy/tested-source.js';
import { NativeMemory } from '../../../shared-memory/ffi.js';
import { goodBytes } from '../../support/good-bytes.js';
import { answer, bad, good, ScriptedSource, type Step } from '../../support/scripted-source.js';
import { TestClock } from '../../support/test-clock.js';

const START_BYTES = BLOCK_BYTES + WINDOW_BYTES;
const START_MS = 1000;
const target = new NativeMemory(4 * BLOCK_BYTES);

function setUp(
  steps: readonly Step[],
  options: { readonly minEntropy?: number; readonly scoreEvery?: number; readonly sizes?: number[] } = {},
) {
  const raw = new ScriptedSource(steps, options.sizes);
  const status = new SourceStatus();
  const clock = new TestClock(START_MS);
  const told: string[] = [];
  const source = new TestedSource(
    raw,
    { spec: 'scripted', minEntropy: options.minEntropy ?? 8, scoreEvery: options.scoreEvery ?? 1 },
    { status, clock, onChange: (state, reason) => told.push(`${state}: ${reason}`) },
  );
  /** Reads until nothing comes, `most` times at most. */
  const take = (most = 1000, length = target.bytes.length): Buffer => {
    const taken: Buffer[] = [];
    for (let reads = 0, empty = 0; reads < most && empty < 5; reads++) {
      const got = source.read(target.address, length);
      if (got === 0) empty++;
      taken.push(Buffer.from(target.bytes.subarray(0, got)));
    }
    return Buffer.concat(taken);
  };
  return { raw, status, clock, told, source, take };
}

const HEALTHY = 'healthy: it has passed its start-up test';
/** A run of 6 equal bytes: one in 2^40, a transient alarm. */
function withRun(stream: number): Buffer {
  const bytes = goodBytes(WINDOW_BYTES, stream);
  return Buffer.from(bytes.fill(0x5a, 100, 106));
}

t.test('start-up: nothing before a block and a window, then the block, to the byte', (t) => {
  const bytes = goodBytes(START_BYTES, 1);
  const s = setUp([{ kind: 'give', bytes: bytes.subarray(0, START_BYTES - 1), good: true }]);
  t.equal(s.status.stored, 'starting');
  t.equal(s.take().length, 0);
  t.equal(s.status.stored, 'starting');
  s.raw.add({ kind: 'give', bytes: bytes.subarray(START_BYTES - 1), good: true });
  t.ok(s.take().equals(bytes.subarray(0, BLOCK_BYTES)), 'start-up bytes are used');
  t.equal(s.status.stored, 'healthy');
  t.same(s.told, [HEALTHY]);
  t.equal(s.status.figure('releasedBytes'), BLOCK_BYTES);
  t.end();
});

t.test('how long a block took, from the first look on, and how often the source was opened again', (t) => {
  const bytes = goodBytes(START_BYTES, 1);
  const s = setUp([{ kind: 'give', bytes: bytes.subarray(0, 100), good: true }]);
  s.take();
  s.clock.advance(700);
  s.raw.add({ kind: 'give', bytes: bytes.subarray(100), good: true });
  t.equal(s.take().length, BLOCK_BYTES);
  t.equal(s.status.figure('refillSumMs'), 700);
  t.equal(
    s.status.refills.reduce((sum, count) => sum + count, 0),
    1,
  );
  t.equal(s.status.figure('reopens'), 0);
  s.raw.add({ kind: 'give', bytes: Buffer.alloc(WINDOW_BYTES), good: false });
  s.take();
  t.equal(s.status.stored, 'failed');
  s.status.enable();
  s.raw.add({ kind: 'give', bytes: goodBytes(START_BYTES, 2), good: true });
  t.equal(s.take().length, BLOCK_BYTES);
  t.equal(s.status.figure('reopens'), 1);
  t.end();
});

t.test('in parts of any size, from reads of any size: all but the last block, in order, once', (t) => {
  const bytes = goodBytes(20 * BLOCK_BYTES + 700, 2);
  const s = setUp([{ kind: 'give', bytes, good: true }], { sizes: [1, 3, 700, 2, 4096, 511] });
  const taken: Buffer[] = [];
  for (let i = 0; !s.raw.isDone && i < 100_000; i++) taken.push(s.take(1, 4 * (1 + (i % 300))));
  taken.push(s.take());
  const all = Buffer.concat(taken);
  t.ok(all.equals(bytes.subarray(0, 20 * BLOCK_BYTES)), `${all.length} bytes`);
  t.end();
});

t.test('the staging memory holds no byte that was handed out or dropped', (t) => {
  const s = setUp([good(START_BYTES, 3)]);
  const { memory } = s.source as unknown as { memory: { bytes: Buffer } };
  s.source.read(target.address, 1000);
  t.ok(
    memory.bytes.subarray(0, 1000).every((byte) => byte === 0),
    'wiped as it goes',
  );
  t.notOk(
    memory.bytes.subarray(1000, START_BYTES).every((byte) => byte === 0),
    'the rest waits',
  );
  s.raw.add(bad(Buffer.alloc(WINDOW_BYTES)));
  s.take();
  t.equal(s.status.stored, 'failed');
  t.ok(
    memory.bytes.every((byte) => byte === 0),
    'wiped after an alarm',
  );
  t.end();
});

t.test('a transient alarm of a healthy source: dropped, and tested anew at once', (t) => {
  const s = setUp([good(START_BYTES + BLOCK_BYTES, 4)]);
  const before = s.take();
  s.clock.advance(1000);
  s.raw.add(bad(withRun(5)), good(START_BYTES, 6));
  t.ok(
    Buffer.concat([before, s.take()]).equals(
      Buffer.concat([goodBytes(2 * BLOCK_BYTES, 4), goodBytes(BLOCK_BYTES, 6)]),
    ),
    'the window before the run is dropped with it',
  );
  t.equal(s.status.alarms, 1);
  t.notOk(s.status.permanent);
  t.equal(s.raw.opens, 2);
  t.same(s.told, [
    HEALTHY,
    'failed: it failed a health test: repetition count: 6 equal samples in a row (cut-off 5)',
    HEALTHY,
  ]);
  t.equal(s.clock.now, START_MS + 1000, 'without any wait');
  t.equal(s.status.counts[HealthCount.RepetitionAlarms], 1);
  t.end();
});

t.test('alarms in the start-up test: tried again after 1 s, 2 s and so on to 30 s', (t) => {
  const s = setUp([]);
  for (const [i, seconds] of [1, 2, 4, 8, 16, 30, 30].entries()) {
    s.raw.add(bad(withRun(10 + i)));
    s.take();
    t.equal(s.raw.opens, i + 1);
    s.clock.advance(seconds * 1000 - 1);
    t.equal(s.take().length, 0);
    t.equal(s.raw.opens, i + 1, `not before ${seconds} s`);
    t.equal(s.source.nextTryMs, s.clock.now + 1);
    s.clock.advance(1);
  }
  s.raw.add(good(START_BYTES, 20));
  t.equal(s.take().length, BLOCK_BYTES);
  // Healthy for a minute: the next failure is a new one.
  s.clock.advance(60_000);
  s.raw.add(answer(-constants.errno.EIO));
  s.take();
  t.equal(s.source.nextTryMs, s.clock.now + 1000);
  t.end();
});

t.test('a permanent alarm: out, however long it takes, until it is enabled', (t) => {
  const s = setUp([good(START_BYTES, 30), bad(Buffer.alloc(WINDOW_BYTES)), good(START_BYTES, 31)]);
  t.equal(s.take().length, BLOCK_BYTES);
  t.equal(s.status.stored, 'failed');
  t.ok(s.status.permanent);
  s.clock.advance(1e9);
  s.source.tryAgain();
  t.equal(s.take().length, 0);
  t.equal(s.raw.opens, 1);
  s.status.enable();
  t.ok(s.take().equals(goodBytes(BLOCK_BYTES, 31)));
  t.equal(s.status.stored, 'healthy');
  t.notOk(s.status.permanent);
  t.end();
});

t.test('an enable is for the failure that the operator saw, not for one that comes later', (t) => {
  const jam = bad(Buffer.alloc(WINDOW_BYTES));
  const s = setUp([jam, good(START_BYTES, 32), jam, good(START_BYTES, 33)]);
  s.take();
  t.ok(s.status.permanent);
  s.status.enable();
  t.ok(s.take(1).equals(goodBytes(BLOCK_BYTES, 32)));
  // A second SIGHUP, on its way while the source was being opened.
  s.status.enable();
  t.equal(s.take().length, 0);
  t.ok(s.status.permanent);
  t.equal(s.source.nextTryMs, Infinity);
  s.status.enable();
  t.ok(s.take().equals(goodBytes(BLOCK_BYTES, 33)), 'one after the failure is');
  t.end();
});

t.test('a source that is healthy for a moment only, time and again, has to wait as well', (t) => {
  const steps: Step[] = [];
  for (let i = 0; i < 1000; i++) steps.push(good(START_BYTES, 100 + i), bad(withRun(2000 + i)));
  const s = setUp(steps);
  for (let second = 0; second < 60; second++) {
    s.take();
    s.clock.advance(1000);
  }
  t.ok(s.raw.opens <= 10, `${s.raw.opens} times opened in a minute`);
  t.end();
});

t.test('errors of the device: told by name, or in its own words; what was staged is dropped', (t) => {
  for (const [result, failure, reason] of [
    [-constants.errno.EIO, undefined, 'EIO'],
    [-constants.errno.ENODEV, undefined, 'ENODEV'],
    [-constants.errno.ENODATA, 'not used', 'it has come to its end'],
    [-constants.errno.EIO, 'its own words', 'its own words'],
  ] as const) {
    const s = setUp([good(START_BYTES + 100, 40), answer(result), good(START_BYTES, 41)]);
    s.raw.failure = failure;
    t.ok(s.take().equals(goodBytes(BLOCK_BYTES, 40)), 'what was released before is good');
    t.same(s.told.at(-1), `failed: ${reason}`);
    t.equal(s.status.alarms, 0, 'no alarm: what waits elsewhere is good');
    s.clock.advance(1000);
    t.ok(s.take().equals(goodBytes(BLOCK_BYTES, 41)), 'nothing of before');
  }
  t.end();
});

t.test('a device that cannot be opened is told once, and tried again; news of it at once', (t) => {
  const refuse = { kind: 'refuse', reason: 'ENOENT' } as const;
  const s = setUp([refuse, refuse, refuse, good(START_BYTES, 50)]);
  s.take();
  t.same(s.told, ['failed: ENOENT']);
  s.clock.advance(1000);
  s.take();
  t.equal(s.raw.opens, 2);
  s.source.tryAgain();
  s.take(1);
  t.equal(s.raw.opens, 3, 'there was news');
  t.same(s.told, ['failed: ENOENT'], 'told once');
  s.source.tryAgain();
  t.equal(s.take().length, BLOCK_BYTES);
  s.source.close();
  t.ok(s.raw.closed);
  t.end();
});

t.test('a source without bytes is slow after 1 s of waiting, and not any more when it gives', (t) => {
  const s = setUp([]);
  s.take();
  t.equal(s.status.stateAt(s.clock.now), 'starting');
  s.clock.advance(999);
  s.take();
  t.equal(s.status.stateAt(s.clock.now), 'starting');
  s.clock.advance(1);
  t.equal(s.status.stateAt(s.clock.now), 'slow');
  s.raw.add(good(START_BYTES, 60));
  s.take(1);
  t.equal(s.status.stateAt(s.clock.now), 'healthy');
  s.clock.advance(5000);
  t.equal(s.status.stateAt(s.clock.now), 'healthy', 'nobody has asked since');
  s.take();
  s.clock.advance(1000);
  t.equal(s.status.stateAt(s.clock.now), 'slow');
  t.end();
});

/** A block with too many ones for FIPS 140-2 and nothing for the other tests to find. */
function biasedBlock(stream: number): Buffer {
  const bytes = goodBytes(BLOCK_BYTES, stream);
  return Buffer.from(bytes.map((byte, i) => (i % 8 === 0 ? byte | 0x55 : byte)));
}

t.test('a block that fails FIPS 140-2 is dropped alone; three in a row are an alarm', (t) => {
  const one = setUp([good(BLOCK_BYTES, 70), bad(biasedBlock(71)), good(START_BYTES, 72)]);
  t.ok(one.take().equals(Buffer.concat([goodBytes(BLOCK_BYTES, 70), goodBytes(BLOCK_BYTES, 72)])));
  t.same(one.told, [HEALTHY]);
  t.equal(one.status.counts[HealthCount.FipsFailures], 1);
  const three = setUp([good(BLOCK_BYTES, 73), ...[74, 75, 76].map((stream) => bad(biasedBlock(stream)))]);
  t.equal(three.take().length, BLOCK_BYTES);
  t.equal(three.status.alarms, 1);
  t.match(three.told.at(-1), /^failed: it failed a health test: FIPS 140-2/i);
  t.end();
});

t.test('one block of so many is scored: the first, whenever the source is opened', (t) => {
  const s = setUp([good(20 * BLOCK_BYTES, 80), answer(-constants.errno.EIO), good(START_BYTES, 81)], {
    scoreEvery: 16,
  });
  s.take();
  t.equal(s.status.counts[HealthCount.FipsBlocks], 2);
  s.clock.advance(1000);
  s.take();
  t.equal(s.status.counts[HealthCount.FipsBlocks], 3);
  t.end();
});

t.test('a source that claims less than full entropy: scored, and conditioned', (t) => {
  const s = setUp([good(BLOCK_BYTES, 90), bad(biasedBlock(91)), good(BLOCK_BYTES, 92)], { minEntropy: 4 });
  const perBlock = 64 * Math.floor(BLOCK_BYTES / inputBytesFor(4));
  const taken = s.take();
  t.equal(taken.length, 2 * perBlock, 'the block with a bad score too');
  t.equal(s.status.figure('releasedBytes'), 2 * perBlock);
  t.equal(s.status.counts[HealthCount.FipsFailures], 1);
  t.notOk(taken.subarray(0, 64).equals(goodBytes(64, 90)));
  t.end();
});
