// The thread of one source that may make its reader wait: a hardware generator, or any other device or file.
//
// It alone blocks when the device does; the data plane sees only the bytes that have arrived. A device that fails or
// is pulled is opened again, at growing intervals.
import { closeSync, constants, openSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { Errno, errnoName } from '../../shared-memory/errno.js';
import { signal } from '../../shared-memory/eventfd.js';
import { asFd } from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import { FedQueueProducer, type FedQueuePlace } from './fed-queue.js';

/** What the thread is started with. */
export interface ReaderSetup {
  readonly path: string;
  readonly place: FedQueuePlace;
  /** The data plane's wake-up eventfd, borrowed. */
  readonly wakeFd: number;
}

/** What the thread tells the main thread. */
export type ReaderMessage =
  { readonly kind: 'delivering' } | { readonly kind: 'failed'; readonly reason: string };

/** /dev/hwrng gives a few bytes a call; larger reads only wait longer. Ours. */
const READ_BYTES = 512;
const FIRST_EMPTY_WAIT_MS = 1;
const LONGEST_EMPTY_WAIT_MS = 50;
const FIRST_REOPEN_WAIT_MS = 1000;
const LONGEST_REOPEN_WAIT_MS = 30_000;

const { path, place, wakeFd } = workerData as ReaderSetup;
const queue = new FedQueueProducer(place);

function post(message: ReaderMessage): void {
  parentPort?.postMessage(message);
}

/** Reads until the device fails or the queue is stopped; gives the reason of the failure. */
function deliver(fd: number, onFirstBytes: () => void): string {
  let emptyWaitMs = FIRST_EMPTY_WAIT_MS;
  for (;;) {
    const room = queue.waitForRoom();
    if (room === 0) return 'stopped';
    // SAFETY: the queue has `room` free bytes at its store address, and this thread alone stores there.
    const got = libc.read(fd, queue.storeAddress, Math.min(room, READ_BYTES));
    if (got > 0) {
      onFirstBytes();
      emptyWaitMs = FIRST_EMPTY_WAIT_MS;
      if (queue.handOver(got)) signal(asFd(wakeFd));
    } else if (got === -Errno.EAGAIN || got === -Errno.EINTR) {
      queue.sleep(emptyWaitMs);
      emptyWaitMs = Math.min(2 * emptyWaitMs, LONGEST_EMPTY_WAIT_MS);
    } else {
      return got === 0 ? 'it has come to its end' : errnoName(got);
    }
  }
}

let reopenWaitMs = FIRST_REOPEN_WAIT_MS;
let failing = false;
while (!queue.isStopped()) {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const reason = deliver(fd, () => {
      reopenWaitMs = FIRST_REOPEN_WAIT_MS;
      if (failing) post({ kind: 'delivering' });
      failing = false;
    });
    closeSync(fd);
    if (!queue.isStopped() && !failing) post({ kind: 'failed', reason });
  } catch (error) {
    if (!failing) post({ kind: 'failed', reason: error instanceof Error ? error.message : String(error) });
  }
  failing = true;
  queue.sleep(reopenWaitMs);
  reopenWaitMs = Math.min(2 * reopenWaitMs, LONGEST_REOPEN_WAIT_MS);
}
