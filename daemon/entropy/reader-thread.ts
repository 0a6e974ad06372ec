// The thread of one source that may make its reader wait: a hardware generator, the CPU, an EGD server.
//
// It alone blocks when the device does; the data plane sees only bytes that have arrived and passed every test. A
// source that fails is opened again by tested-source.ts, at growing intervals.
import { parentPort, workerData } from 'node:worker_threads';
import { signal } from '../../shared-memory/eventfd.js';
import { asFd } from '../../shared-memory/fd.js';
import { setThreadName } from '../../shared-memory/process-control.js';
import { MonotonicClock } from '../../shared-memory/monotonic-clock.js';
import type { ReaderMessage, SourceMessage } from '../data-plane-messages.js';
import { FedQueueProducer, type FedQueuePlace } from './fed-queue.js';
import { isKernelSource, makeRawSource } from './raw-source.js';
import type { SourceSpec } from './source-spec.js';
import { SourceStatus } from './source-status.js';
import { TestedSource } from './tested-source.js';

/** What the thread is started with. */
export interface ReaderSetup {
  readonly spec: SourceSpec;
  readonly queue: FedQueuePlace;
  readonly status: SharedArrayBuffer;
  /** The data plane's wake-up eventfd, borrowed. */
  readonly wakeFd: number;
}

/** A source without bytes is looked at again after this time, then at growing intervals. Ours. */
const FIRST_EMPTY_WAIT_MS = 1;
const LONGEST_EMPTY_WAIT_MS = 50;

const { spec, queue: place, status: statusPlace, wakeFd } = workerData as ReaderSetup;
setThreadName(spec.text);
const queue = new FedQueueProducer(place);
const status = new SourceStatus(statusPlace);
const clock = new MonotonicClock();
const raw = makeRawSource(spec, () => {
  source.tryAgain();
  queue.nudge();
});
const source: TestedSource = new TestedSource(
  raw,
  { spec: spec.text, minEntropy: spec.minEntropy, scoreEvery: isKernelSource(spec) ? 16 : 1 },
  {
    status,
    clock,
    onChange: (state, reason) => {
      const message: SourceMessage = { kind: 'source', spec: spec.text, state, reason };
      parentPort?.postMessage(message);
    },
  },
);

/** How long to wait before the next look: a failed source knows itself. */
function waitMs(emptyWaitMs: number): number {
  clock.read();
  const untilTryMs = source.nextTryMs - (clock.nowMs[0] ?? 0);
  return status.stored === 'failed' ? Math.max(1, untilTryMs) : emptyWaitMs;
}

async function deliver(): Promise<void> {
  let emptyWaitMs = FIRST_EMPTY_WAIT_MS;
  for (;;) {
    const moves = queue.moves();
    if (queue.isStopped()) return;
    const room = queue.room();
    // SAFETY: the queue has `room` free bytes at its store address, and this thread alone stores there.
    const got = room === 0 ? 0 : source.read(queue.storeAddress, room);
    if (got > 0) {
      emptyWaitMs = FIRST_EMPTY_WAIT_MS;
      if (queue.handOver(got)) signal(asFd(wakeFd));
      continue;
    }
    const timeoutMs = room === 0 ? Infinity : waitMs(emptyWaitMs);
    if (room > 0) emptyWaitMs = Math.min(2 * emptyWaitMs, LONGEST_EMPTY_WAIT_MS);
    if (raw.receives === true) await queue.moved(moves, timeoutMs);
    else queue.waitForMove(moves, timeoutMs);
  }
}

// Waiting for shared memory does not keep a thread alive that receives; a timer that is never due does.
const alive = setInterval(() => undefined, 2 ** 31 - 1);
source.open();
parentPort?.postMessage({ kind: 'tried' } satisfies ReaderMessage);
void deliver().then(() => {
  clearInterval(alive);
  source.close();
});
