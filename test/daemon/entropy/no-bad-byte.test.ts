// The promise of the whole way from a source to a guest: whatever sources do, in whatever order, each byte that leaves is a
// good byte of one of them, at its place, used once. Not one untested, repeated or constant byte is among them.
//
// Failures are injected at random points; what the good stretches held is known to the byte. Bad stretches are those that
// the tests find for sure within the window of delay: runs, repeated blocks and reads, short periods. Leaves out: bias, whose
// bound is in tested-source.test.ts and docs/entropy-tests.md; threads (reader-thread.test.ts).
import assert from 'node:assert/strict';
import { constants } from 'node:os';
import fc from 'fast-check';
import t from 'tap';
import { createFedQueue, FedQueueProducer, FedSource } from '../../../daemon/entropy/fed-queue.js';
import { HealthTests, Verdict } from '../../../daemon/entropy/health-tests.js';
import { EntropyPool } from '../../../daemon/entropy/pool.js';
import type { EntropySource } from '../../../daemon/entropy/source.js';
import { SourceStatus } from '../../../daemon/entropy/source-status.js';
import { TestedSource } from '../../../daemon/entropy/tested-source.js';
import { viewOf } from '../../../shared-memory/ffi.js';
import { goodBytes } from '../../support/good-bytes.js';
import { answer, bad, good, ScriptedSource, type Step } from '../../support/scripted-source.js';
import { TestClock } from '../../support/test-clock.js';

/** Repeats are found where they lie a multiple of this after the original, so every stretch is one. */
const REPEAT_BYTES = 64;

/** What a source does for a while; `stream` makes the bytes of each stretch others than those of all before. */
type Stretch = (stream: number) => readonly Step[];

const length = (least: number, most: number) =>
  fc
    .integer({ min: Math.ceil(least / REPEAT_BYTES), max: Math.floor(most / REPEAT_BYTES) })
    .map((n) => n * REPEAT_BYTES);

const stretches = {
  good: length(64, 20_000).map((bytes): Stretch => (stream) => [good(bytes, stream)]),
  run: fc
    .record({ bytes: length(64, 4096), value: fc.nat(255) })
    .map(({ bytes, value }): Stretch => () => [bad(Buffer.alloc(bytes, value))]),
  repeatedBlock: length(64, 2048).map((bytes): Stretch => (stream) => {
    const block = goodBytes(REPEAT_BYTES, stream);
    return [{ kind: 'give', bytes: block, good: true }, bad(Buffer.alloc(bytes, block))];
  }),
  replayedRead: fc.constant<Stretch>((stream) => [good(2560, stream), bad(goodBytes(2560, stream))]),
  period: fc
    .record({ bytes: length(1024, 4096), period: fc.constantFrom(2, 4, 16) })
    .map(({ bytes, period }): Stretch => (stream) => [bad(Buffer.alloc(bytes, goodBytes(period, stream)))]),
  error: fc
    .constantFrom('EIO', 'ENODEV', 'ENODATA')
    .map((name): Stretch => () => [answer(-constants.errno[name])]),
  silence: fc.integer({ min: 1, max: 20 }).map(
    (reads): Stretch =>
      () =>
        Array.from({ length: reads }, () => answer(0)),
  ),
  gone: fc.constant<Stretch>(() => [
    answer(-constants.errno.EIO),
    { kind: 'refuse', reason: 'ENOENT' },
    { kind: 'refuse', reason: 'ENOENT' },
  ]),
} as const;

const script = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: stretches.good },
    ...[
      stretches.run,
      stretches.repeatedBlock,
      stretches.replayedRead,
      stretches.period,
      stretches.error,
      stretches.silence,
      stretches.gone,
    ].map((arbitrary) => ({ weight: 1, arbitrary: arbitrary })),
  ),
  { minLength: 1, maxLength: 12 },
);

const scenario = fc.record({
  scripts: fc.array(script, { minLength: 1, maxLength: 3 }),
  sizes: fc.array(fc.oneof(fc.integer({ min: 1, max: 700 }), fc.constant(Infinity)), {
    minLength: 1,
    maxLength: 4,
  }),
  throughQueue: fc.boolean(),
  takes: fc.array(fc.integer({ min: 1, max: 4096 }), { minLength: 1, maxLength: 20 }),
  enableEvery: fc.integer({ min: 3, max: 40 }),
});
type Scenario = typeof scenario extends fc.Arbitrary<infer T> ? T : never;

/** Hands on what a source gives, and keeps a copy of it. */
class Recorder implements EntropySource {
  readonly spec: string;
  readonly handed: Buffer[] = [];
  private readonly source: EntropySource;
  private readonly all: Buffer[];

  constructor(source: EntropySource, all: Buffer[]) {
    this.source = source;
    this.all = all;
    this.spec = source.spec;
  }

  get alarms(): number {
    return this.source.alarms;
  }

  read(address: number, bytes: number): number {
    const got = this.source.read(address, bytes);
    if (got === 0) return 0;
    const copy = Buffer.from(viewOf(address, got));
    this.handed.push(copy);
    this.all.push(copy);
    return got;
  }

  close(): void {
    this.source.close();
  }
}

/** One source with all that stands between it and the pool. */
function makeSource(index: number, stretchesOf: readonly Stretch[], options: Scenario, clock: TestClock) {
  const raw = new ScriptedSource(
    stretchesOf.flatMap((stretch, i) => stretch(1 + 100 * index + i)),
    options.sizes,
  );
  const status = new SourceStatus();
  const tested = new TestedSource(
    raw,
    { spec: `source ${index}`, minEntropy: 8, scoreEvery: 1 },
    { status, clock, onChange: () => undefined },
  );
  if (!options.throughQueue) return { raw, status, source: tested, produce: () => undefined };
  const place = createFedQueue();
  const producer = new FedQueueProducer(place);
  const produce = (): void => {
    for (let room = producer.room(); room > 0; room = producer.room()) {
      const got = tested.read(producer.storeAddress, room);
      if (got === 0) return;
      producer.handOver(got);
    }
  };
  return { raw, status, source: new FedSource(tested.spec, place, status), produce };
}

/** Where `part` lies in `whole` from `from` on. Throws when it does not. */
function find(whole: Buffer, part: Buffer, from: number, what: string): number {
  const at = whole.indexOf(part, from);
  if (at < 0) throw new Error(`${what}: ${part.length} bytes are not where they should be`);
  return at + part.length;
}

/** Runs a scenario to its end and checks all that left; gives how much that was. */
function run(options: Scenario): number {
  const clock = new TestClock(1000);
  const all: Buffer[] = [];
  const sources = options.scripts.map((stretchesOf, i) => makeSource(i, stretchesOf, options, clock));
  const recorders = sources.map(({ source }) => new Recorder(source, all));
  const pool = new EntropyPool({ sources: recorders, mixedWith: undefined }, () => undefined);
  const guests: Buffer[] = [];
  for (let round = 0, idle = 0; idle < 60; round++) {
    for (const { produce } of sources) produce();
    const wanted = options.takes[round % options.takes.length] ?? 1;
    const got = Math.min(wanted, pool.ready());
    if (got > 0) {
      guests.push(Buffer.from(pool.memory.bytes.subarray(pool.offset, pool.offset + got)));
      pool.take(got);
    } else {
      clock.advance(5000);
    }
    if (round % options.enableEvery === 0) {
      for (const { status } of sources) if (status.permanent) status.enable();
    }
    idle = got > 0 || sources.some(({ raw }) => !raw.isDone) ? 0 : idle + 1;
    if (round > 1_000_000) throw new Error('a scenario without end');
  }
  pool.close();
  sources.forEach(({ raw }, i) => {
    const goodBytesOf = Buffer.concat(raw.good);
    let at = 0;
    // A read may span places where good bytes were dropped, in the queue too, so by words, which are never torn.
    const handed = Buffer.concat(recorders[i]?.handed ?? []);
    for (let from = 0; from < handed.length; from += 4)
      at = find(goodBytesOf, handed.subarray(from, from + 4), at, `what left source ${i}`);
  });
  const handedToPool = Buffer.concat(all);
  let at = 0;
  // A request may span bytes between which the pool was dropped, so by words of a pool.
  for (const guest of guests) {
    for (let from = 0; from < guest.length; from += 4)
      at = find(handedToPool, guest.subarray(from, from + 4), at, 'what reached a guest');
  }
  return guests.reduce((sum, { length: bytes }) => sum + bytes, 0);
}

t.test('whatever sources do, only good bytes leave, in order and once', (t) => {
  let bytes = 0;
  let served = 0;
  fc.assert(
    fc.property(scenario, (options) => {
      const left = run(options);
      bytes += left;
      if (left > 0) served++;
    }),
    { numRuns: 400, endOnFailure: true },
  );
  t.ok(bytes > 2_000_000, `${bytes} bytes left in all`);
  t.ok(served > 200, `in ${served} of 400 scenarios`);
  t.end();
});

t.test('the property fails when the tests let everything pass: it can', (t) => {
  const proper = Object.getOwnPropertyDescriptors(HealthTests.prototype);
  HealthTests.prototype.testWindow = () => Verdict.Pass;
  HealthTests.prototype.scoreBlock = () => true;
  try {
    assert.throws(
      () => {
        fc.assert(
          fc.property(scenario, (options) => void run(options)),
          { numRuns: 400, endOnFailure: true },
        );
      },
      (error: Error) => String(error.cause).includes('bytes are not where they should be'),
    );
    t.pass('a bad byte was found');
  } finally {
    Object.defineProperties(HealthTests.prototype, proper);
  }
  t.end();
});
