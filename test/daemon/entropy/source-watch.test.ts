// What the operator is told of sources, and that nobody is woken to find out what cannot have changed.
//
// setTimeout() is replaced: a look is due when the test says so. How long a source has been waited for is written into
// its status, which is all that the watch goes by.
import t, { type Test } from 'tap';
import { createFedQueue, FedQueueProducer, FedSource } from '../../../daemon/entropy/fed-queue.js';
import { SLOW_AFTER_MS, SourceStatus, type StoredState } from '../../../daemon/entropy/source-status.js';
import { SourceWatch } from '../../../daemon/entropy/source-watch.js';
import { NativeMemory } from '../../../shared-memory/ffi.js';
import { MonotonicClock } from '../../../shared-memory/monotonic-clock.js';

const target = new NativeMemory(4096);
const clock = new MonotonicClock();

function monotonicMs(): number {
  clock.read();
  return clock.nowMs[0] ?? 0;
}

interface Due {
  readonly run: () => void;
  readonly delayMs: number;
  cleared: boolean;
}

/** Takes over setTimeout() for this test. */
function takeTimers(t: Test) {
  const armed: Due[] = [];
  t.intercept(globalThis, 'setTimeout', {
    value: (run: () => void, delayMs: number) => {
      const due: Due = { run, delayMs, cleared: false };
      armed.push(due);
      return Object.assign(due, { unref: () => due });
    },
  });
  t.intercept(globalThis, 'clearTimeout', {
    value: (due: Due | undefined) => {
      if (due !== undefined) due.cleared = true;
    },
  });
  return {
    /** How many wait to be due. */
    count: () => armed.filter(({ cleared }) => !cleared).length,
    /** The one that waits is due. */
    fire: () => {
      const due = armed.splice(0).filter(({ cleared }) => !cleared);
      if (due.length !== 1) throw new Error(`${due.length} timers`);
      due[0]?.run();
    },
  };
}

function setUp(t: Test, specs: readonly string[]) {
  const timers = takeTimers(t);
  const lines: { level: string; code: string; message: string; fields: unknown }[] = [];
  const sources = specs.map((spec) => {
    const queue = createFedQueue();
    const status = new SourceStatus();
    return {
      spec,
      status,
      queue,
      producer: new FedQueueProducer(queue),
      fed: new FedSource(spec, queue, status),
    };
  });
  const watch = new SourceWatch((level, code, message, fields) =>
    lines.push({ level, code, message, fields }),
  );
  for (const one of sources) watch.add(one);
  t.teardown(() => watch.stop());
  const source = (spec: string) => {
    const found = sources.find((other) => other.spec === spec);
    if (found === undefined) throw new Error(spec);
    return found;
  };
  /** As the reader's thread does it: the status first, then the message. */
  const become = (spec: string, state: StoredState, reason: string): void => {
    source(spec).status.setState(state);
    watch.take({ kind: 'source', spec, state, reason });
  };
  /** The reader has waited for so long; 0: it does not wait. */
  const waits = (spec: string, ms: number): void => {
    source(spec).status.setFigure('waitingSinceMs', ms === 0 ? 0 : monotonicMs() - ms);
  };
  const codes = () => lines.splice(0).map(({ level, code }) => `${level} ${code}`);
  /** Looks until no look is due any more. */
  const settle = (): void => {
    for (let looks = 0; timers.count() > 0; looks++) {
      if (looks === 3) throw new Error('it goes on looking');
      timers.fire();
    }
  };
  return { timers, lines, watch, source, become, waits, codes, settle };
}

/** Lets promises that are settled run on. */
const turn = async (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const PASSED = 'it has passed its start-up test';

t.test('ready, failed, back: each told once, with what, why and what next', (t) => {
  const s = setUp(t, ['hwrng']);
  t.equal(s.watch.sources[0]?.reason, 'it has not passed its start-up test yet');
  t.same(s.codes(), []);
  s.become('hwrng', 'healthy', PASSED);
  t.same(s.lines.splice(0), [
    {
      level: 'info',
      code: 'source_ready',
      message: `hwrng is healthy: ${PASSED}`,
      fields: { source: 'hwrng' },
    },
  ]);
  s.become('hwrng', 'failed', 'EIO');
  t.same(s.lines.splice(0), [
    {
      level: 'error',
      code: 'source_failed',
      message: 'reading hwrng failed: EIO; trying again',
      fields: { source: 'hwrng' },
    },
  ]);
  t.equal(s.watch.sources[0]?.reason, 'EIO');
  s.become('hwrng', 'healthy', PASSED);
  t.same(s.codes(), ['info source_back']);
  s.source('hwrng').status.raiseAlarm(true);
  s.become('hwrng', 'failed', 'it failed a health test');
  t.match(s.lines.splice(0)[0]?.message, /; it stays out until an operator enables it again \(SIGHUP\)$/);
  t.end();
});

t.test('a source that is not known is no news', (t) => {
  const s = setUp(t, ['hwrng']);
  s.watch.take({ kind: 'source', spec: 'other', state: 'failed', reason: 'EIO' });
  s.watch.switched('other', 'hwrng');
  t.same(s.codes(), []);
  t.end();
});

t.test('a switch names both', (t) => {
  const s = setUp(t, ['hwrng', 'random']);
  s.watch.switched('random', 'hwrng');
  t.same(s.lines.splice(0), [
    {
      level: 'info',
      code: 'source_switch',
      message: 'random serves now in the place of hwrng',
      fields: { source: 'random' },
    },
  ]);
  t.end();
});

t.test('all healthy and nobody waits: no timer runs, until a source is wanted', async (t) => {
  const s = setUp(t, ['hwrng', 'random']);
  t.equal(s.timers.count(), 1, 'they are starting');
  s.become('hwrng', 'healthy', PASSED);
  s.become('random', 'healthy', PASSED);
  s.settle();
  await turn();
  t.equal(s.timers.count(), 0);
  // The data plane has emptied a queue and found nothing.
  t.equal(s.source('random').fed.read(target.address, 64), 0);
  await turn();
  t.equal(s.timers.count(), 1, 'wanted');
  s.timers.fire();
  t.equal(s.timers.count(), 1, 'as long as it is');
  s.source('random').producer.handOver(64);
  s.settle();
  await turn();
  t.equal(s.timers.count(), 0, 'it has bytes, and all is as before');
  t.equal(s.source('random').fed.read(target.address, 64), 64);
  t.equal(s.source('random').fed.read(target.address, 64), 0);
  await turn();
  t.equal(s.timers.count(), 1, 'wanted again');
  t.end();
});

t.test('slow and back: of a source that has been healthy and of one that starts', async (t) => {
  const s = setUp(t, ['hwrng']);
  s.waits('hwrng', SLOW_AFTER_MS + 1);
  s.timers.fire();
  t.same(s.codes(), ['warn source_slow'], 'a device that never gave a byte');
  t.equal(s.watch.sources[0]?.reason, 'it has given nothing for 1 s');
  s.waits('hwrng', 0);
  s.become('hwrng', 'healthy', PASSED);
  t.same(s.codes(), ['info source_ready']);
  s.settle();
  await turn();
  s.source('hwrng').fed.read(target.address, 64);
  await turn();
  s.waits('hwrng', SLOW_AFTER_MS + 1);
  s.timers.fire();
  t.same(s.codes(), ['warn source_slow']);
  s.timers.fire();
  s.timers.fire();
  t.same(s.codes(), [], 'told once');
  s.waits('hwrng', 0);
  s.source('hwrng').producer.handOver(64);
  s.timers.fire();
  t.same(s.codes(), ['info source_back']);
  t.equal(s.watch.sources[0]?.reason, 'it gives bytes again');
  await turn();
  t.equal(s.timers.count(), 0);
  t.end();
});

t.test('a source that failed, is open again and silent: slow, while somebody waits', async (t) => {
  const s = setUp(t, ['hwrng']);
  s.become('hwrng', 'healthy', PASSED);
  s.become('hwrng', 'failed', 'EIO');
  s.codes();
  s.settle();
  await turn();
  t.equal(s.timers.count(), 0, 'a failed one tells by itself');
  s.source('hwrng').fed.read(target.address, 64);
  await turn();
  // As TestedSource does: no message for a new start-up.
  s.source('hwrng').status.setState('starting');
  s.waits('hwrng', SLOW_AFTER_MS + 1);
  s.timers.fire();
  t.same(s.codes(), ['warn source_slow']);
  s.waits('hwrng', 0);
  s.become('hwrng', 'healthy', PASSED);
  t.same(s.codes(), ['info source_back']);
  t.end();
});

t.test('a source that comes and goes: two lines of a kind in 10 s, and a count of the rest', (t) => {
  const s = setUp(t, ['hwrng', 'random']);
  for (let i = 0; i < 50; i++) {
    s.become('hwrng', 'failed', 'EIO');
    s.become('hwrng', 'healthy', PASSED);
  }
  s.become('random', 'failed', 'EIO');
  const lines = s.lines.splice(0);
  t.same(
    lines.map(({ code }) => code),
    [
      'source_failed',
      'source_back',
      'source_failed',
      'source_back',
      // Another source's lines are not suppressed.
      'source_failed',
    ],
  );
  t.equal(s.watch.sources[0]?.reason, PASSED, 'the state is kept all the same');
  // Past the window the next line says how many are missing.
  const now = performance.now();
  t.intercept(performance, 'now', { value: () => now + 11_000 });
  s.become('hwrng', 'failed', 'EIO');
  t.same(s.lines.splice(0)[0]?.fields, { source: 'hwrng', suppressed: 48 });
  t.end();
});

t.test('stop() ends the looks, also one that a wait would have begun', async (t) => {
  const s = setUp(t, ['hwrng']);
  s.become('hwrng', 'healthy', PASSED);
  s.settle();
  await turn();
  s.watch.stop();
  s.source('hwrng').fed.read(target.address, 64);
  await turn();
  t.equal(s.timers.count(), 0);
  const other = setUp(t, ['random']);
  t.equal(other.timers.count(), 1);
  other.watch.stop();
  t.equal(other.timers.count(), 0);
  t.end();
});
