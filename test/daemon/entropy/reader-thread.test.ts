// The thread that reads a device that may make it wait, on FIFOs and files in the place of devices.
import { once } from 'node:events';
import { closeSync, constants, openSync, renameSync, writeFileSync, writeSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import {
  createFedQueue,
  FED_QUEUE_BYTES,
  FedSource,
  stopFedQueue,
} from '../../../daemon/entropy/fed-queue.js';
import type { ReaderMessage, ReaderSetup } from '../../../daemon/entropy/reader-thread.js';
import { openEventfd, readEventfd } from '../../../shared-memory/eventfd.js';
import { NativeMemory } from '../../../shared-memory/ffi.js';
import { eventually, temporaryFolder } from '../../support/rng-daemon.js';

const target = new NativeMemory(FED_QUEUE_BYTES);
const READER = new URL('../../../daemon/entropy/reader-thread.js', import.meta.url);

/** A reader of `path` and the data plane's end of its queue. */
function startReader(t: Test, path: string) {
  const place = createFedQueue();
  const wakeFd = openEventfd();
  const workerData: ReaderSetup = { path, place, wakeFd };
  const worker = new Worker(READER, { workerData });
  const messages: ReaderMessage[] = [];
  worker.on('message', (message: ReaderMessage) => messages.push(message));
  const exited = once(worker, 'exit');
  const stop = async () => {
    stopFedQueue(place);
    await exited;
  };
  t.teardown(stop);
  const source = new FedSource(`test:${path}`, place);
  /** Waits for `length` bytes. */
  const take = async (length: number): Promise<string> => {
    let text = '';
    const done = await eventually(() => {
      const got = source.read(target.address, length - text.length);
      text += target.bytes.toString('latin1', 0, got);
      return text.length === length;
    });
    return done ? text : `only ${text.length} bytes came`;
  };
  return { wakeFd, messages, take, stop, source };
}

function makeFifo(t: Test): { path: string; write: (text: string) => void; close: () => void } {
  const path = join(temporaryFolder(t), 'device');
  if (spawnSync('mkfifo', [path]).status !== 0) throw new Error('mkfifo');
  // Read and write: the FIFO has a writer for as long as this is open, as a device is there for as long as it is.
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  let open = true;
  const close = (): void => {
    if (open) closeSync(fd);
    open = false;
  };
  t.teardown(close);
  return { path, write: (text) => void writeSync(fd, text), close };
}

t.test(
  'a device that has bytes now and then: they arrive in order, and the data plane is woken',
  async (t) => {
    const fifo = makeFifo(t);
    const reader = startReader(t, fifo.path);
    t.equal(reader.source.read(target.address, 10), 0, 'nothing yet');
    let sent = '';
    let taken = '';
    for (const text of ['1st.', 'the second', 'xx', 'x'.repeat(3000)]) {
      fifo.write(text);
      sent += text;
      // Whole words only: two bytes of the second wait for the next.
      taken += await reader.take((sent.length & ~3) - taken.length);
      t.equal(taken, sent.slice(0, sent.length & ~3));
      t.equal(reader.source.read(target.address, 10), 0);
    }
    t.ok(await eventually(() => readEventfd(reader.wakeFd) > 0), 'woken');
    t.same(reader.messages, []);
  },
);

t.test(
  'the end of a device is told once; it is opened again and goes on, which is told once too',
  async (t) => {
    const fifo = makeFifo(t);
    const reader = startReader(t, fifo.path);
    fifo.write('before..');
    t.equal(await reader.take(8), 'before..');
    fifo.close();
    t.ok(await eventually(() => reader.messages.length > 0));
    t.same(reader.messages, [{ kind: 'failed', reason: 'it has come to its end' }]);
    const again = openSync(fifo.path, constants.O_RDWR | constants.O_NONBLOCK);
    writeSync(again, 'back');
    t.equal(await reader.take(4), 'back');
    t.ok(await eventually(() => reader.messages.length === 2));
    t.match(reader.messages[1], { kind: 'delivering' });
    closeSync(again);
  },
);

t.test('a device that is not there when the daemon looks again', async (t) => {
  const path = join(temporaryFolder(t), 'device');
  const reader = startReader(t, path);
  t.ok(await eventually(() => reader.messages.length > 0));
  t.match(reader.messages[0], { kind: 'failed', reason: /ENOENT/ });
  writeFileSync(`${path}.new`, 'here it is..');
  renameSync(`${path}.new`, path);
  t.equal(await reader.take(12), 'here it is..');
});

t.test('a directory in the place of a device fails with its error', async (t) => {
  const reader = startReader(t, temporaryFolder(t));
  t.ok(await eventually(() => reader.messages.length > 0));
  t.match(reader.messages[0], { kind: 'failed', reason: 'EISDIR' });
});

t.test('a reader that waits is stopped: for bytes, for room, for a device', async (t) => {
  const silent = makeFifo(t);
  await startReader(t, silent.path).stop();
  t.pass('while it waits for bytes');
  const full = startReader(t, '/dev/zero');
  t.ok(await eventually(() => full.source.read(target.address, 4) === 4));
  await full.stop();
  t.pass('while it waits for room');
  const missing = startReader(t, join(temporaryFolder(t), 'missing'));
  t.ok(await eventually(() => missing.messages.length > 0));
  await missing.stop();
  t.pass('while it waits for the device to come back');
});
