// The thread that reads and tests a source, on FIFOs and files in the place of devices.
import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import type { ReaderMessage, SourceMessage } from '../../../daemon/data-plane-messages.js';
import {
  createFedQueue,
  FED_QUEUE_BYTES,
  FedSource,
  nudgeFedQueue,
  stopFedQueue,
} from '../../../daemon/entropy/fed-queue.js';
import { BLOCK_BYTES, WINDOW_BYTES } from '../../../daemon/entropy/health-tests.js';
import type { ReaderSetup } from '../../../daemon/entropy/reader-thread.js';
import { SourceStatus } from '../../../daemon/entropy/source-status.js';
import { openEventfd, readEventfd } from '../../../shared-memory/eventfd.js';
import { NativeMemory } from '../../../shared-memory/ffi.js';
import { makeFifo } from '../../support/fifo.js';
import { goodBytes } from '../../support/good-bytes.js';
import { eventually, temporaryFolder } from '../../support/rng-daemon.js';

const target = new NativeMemory(FED_QUEUE_BYTES);
const READER = new URL('../../../daemon/entropy/reader-thread.js', import.meta.url);

/** A reader of `path` and the data plane's end of its queue. */
function startReader(t: Test, path: string) {
  const queue = createFedQueue();
  const status = new SourceStatus();
  const wakeFd = openEventfd();
  const text = `file:${path}`;
  const workerData: ReaderSetup = {
    spec: { kind: 'file', path, text, minEntropy: 8 },
    queue,
    status: status.place,
    wakeFd,
  };
  const worker = new Worker(READER, { workerData });
  const messages: SourceMessage[] = [];
  let tried = 0;
  worker.on('message', (message: ReaderMessage) => {
    if (message.kind === 'tried') tried++;
    else messages.push(message);
  });
  const exited = once(worker, 'exit');
  const stop = async () => {
    stopFedQueue(queue);
    await exited;
  };
  t.teardown(stop);
  const source = new FedSource(text, queue, status);
  /** Waits for `length` bytes, and gives them. */
  const take = async (length: number): Promise<Buffer> => {
    const taken: Buffer[] = [];
    let total = 0;
    await eventually(() => {
      const got = source.read(target.address, length - total);
      taken.push(Buffer.from(target.bytes.subarray(0, got)));
      total += got;
      return total === length;
    });
    return Buffer.concat(taken);
  };
  const told = async (count: number) => {
    await eventually(() => messages.length >= count);
    return messages.map(({ state, reason }) => `${state}: ${reason}`);
  };
  const enable = () => {
    status.enable();
    nudgeFedQueue(queue);
  };
  return { wakeFd, take, told, stop, source, status, enable, tried: () => tried };
}

const STARTED = 'healthy: it has passed its start-up test';

t.test('bytes that come now and then: block by block, in order, and the data plane is woken', async (t) => {
  const fifo = makeFifo(t);
  const reader = startReader(t, fifo.path);
  t.equal(reader.source.read(target.address, 100), 0, 'nothing yet');
  const good = goodBytes(10 * BLOCK_BYTES, 1);
  const first = BLOCK_BYTES + WINDOW_BYTES;
  fifo.write(good.subarray(0, first - 1));
  await eventually(() => reader.status.figure('waitingSinceMs') > 0);
  t.equal(reader.source.read(target.address, 100), 0, 'one byte short of a start-up test');
  fifo.write(good.subarray(first - 1, first));
  t.ok((await reader.take(BLOCK_BYTES)).equals(good.subarray(0, BLOCK_BYTES)), 'its bytes are used');
  t.ok(await eventually(() => readEventfd(reader.wakeFd) > 0), 'woken');
  t.same(await reader.told(1), [STARTED]);
  // In pieces of odd lengths.
  for (let at = first; at < good.length; at += 777)
    fifo.write(good.subarray(at, Math.min(at + 777, good.length)));
  t.ok((await reader.take(8 * BLOCK_BYTES)).equals(good.subarray(BLOCK_BYTES, 9 * BLOCK_BYTES)));
  t.equal(reader.source.read(target.address, 100), 0, 'the last block has no window behind it');
  t.equal(reader.status.figure('releasedBytes'), 9 * BLOCK_BYTES);
});

t.test('the end of a device is told; it is opened again and goes on, which is told too', async (t) => {
  const fifo = makeFifo(t);
  const reader = startReader(t, fifo.path);
  fifo.write(goodBytes(4 * BLOCK_BYTES, 2));
  await reader.take(3 * BLOCK_BYTES);
  fifo.unplug();
  t.same(await reader.told(2), [STARTED, 'failed: it has come to its end']);
  fifo.plug();
  const good = goodBytes(2 * BLOCK_BYTES, 3);
  fifo.write(good);
  t.ok((await reader.take(BLOCK_BYTES)).equals(good.subarray(0, BLOCK_BYTES)), 'nothing from before');
  t.same((await reader.told(3))[2], STARTED);
});

t.test('a device that is not there when the daemon looks again', async (t) => {
  const path = join(temporaryFolder(t), 'device');
  const reader = startReader(t, path);
  t.match((await reader.told(1))[0], /^failed: ENOENT/);
  t.ok(await eventually(() => reader.tried() > 0), 'it was tried, although in vain');
  const good = goodBytes(2 * BLOCK_BYTES, 4);
  writeFileSync(`${path}.new`, good);
  renameSync(`${path}.new`, path);
  t.ok((await reader.take(BLOCK_BYTES)).equals(good.subarray(0, BLOCK_BYTES)));
});

t.test('a directory in the place of a device fails with its error', async (t) => {
  const reader = startReader(t, temporaryFolder(t));
  t.same((await reader.told(1))[0], 'failed: EISDIR');
});

t.test('a device that jams is out for good, with what waited of it, until it is enabled', async (t) => {
  const fifo = makeFifo(t);
  const reader = startReader(t, fifo.path);
  fifo.write(goodBytes(3 * BLOCK_BYTES, 5));
  await eventually(() => reader.status.figure('releasedBytes') === 2 * BLOCK_BYTES);
  fifo.write(Buffer.alloc(2 * BLOCK_BYTES));
  t.match((await reader.told(2))[1], /^failed: it failed a health test: repetition count: \d+ equal samples/);
  t.ok(reader.status.permanent);
  t.equal(reader.source.read(target.address, 100), 0, 'dropped');
  fifo.unplug();
  fifo.plug();
  const good = goodBytes(2 * BLOCK_BYTES, 6);
  fifo.write(good);
  t.equal(reader.status.stored, 'failed');
  reader.enable();
  t.ok((await reader.take(BLOCK_BYTES)).equals(good.subarray(0, BLOCK_BYTES)));
  t.notOk(reader.status.permanent);
});

t.test('a reader that waits is stopped: for bytes, for room, for a device', async (t) => {
  const silent = makeFifo(t);
  await startReader(t, silent.path).stop();
  t.pass('while it waits for bytes');
  const full = startReader(t, '/dev/urandom');
  t.ok(await eventually(() => full.source.read(target.address, 4) === 4));
  await full.stop();
  t.pass('while it waits for room');
  const missing = startReader(t, join(temporaryFolder(t), 'missing'));
  await missing.told(1);
  await missing.stop();
  t.pass('while it waits for the device to come back');
});
