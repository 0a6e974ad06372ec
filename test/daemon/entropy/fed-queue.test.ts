// The queue between a reader's thread and the data plane: bytes in order, once, wiped; and no wake-up is lost.
import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import t from 'tap';
import {
  createFedQueue,
  FED_QUEUE_BYTES,
  FedQueueProducer,
  FedSource,
  stopFedQueue,
} from '../../../daemon/entropy/fed-queue.js';
import { SourceStatus } from '../../../daemon/entropy/source-status.js';
import { NativeMemory, viewOf } from '../../../shared-memory/ffi.js';

const target = new NativeMemory(FED_QUEUE_BYTES);

t.test('random stores and reads in turn: in order, never twice, wiped behind the reader', (t) => {
  const place = createFedQueue();
  const producer = new FedQueueProducer(place);
  const source = new FedSource('test', place, new SourceStatus());
  const whole = viewOf(place.address, FED_QUEUE_BYTES);
  let stored = 0;
  let taken = 0;
  const words = fc.oneof(fc.nat(150), fc.nat(FED_QUEUE_BYTES / 4));
  const action = fc.record({ store: fc.boolean(), length: words.map((count) => 4 * count) });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 100 }), (actions) => {
      for (const { store, length } of actions) {
        if (store && stored - taken < FED_QUEUE_BYTES && length > 0) {
          const count = Math.min(producer.room(), length);
          assert.ok(count > 0);
          const bytes = viewOf(producer.storeAddress, count);
          for (let i = 0; i < count; i++) bytes[i] = 1 + ((stored + i) % 255);
          stored += count;
          producer.handOver(count);
        } else if (!store && length > 0) {
          const got = source.read(target.address, length);
          assert.ok(got <= length && got % 4 === 0, 'whole words');
          assert.ok(got > 0 || stored === taken, 'what waits is given');
          for (let i = 0; i < got; i++) assert.equal(target.bytes[i], 1 + ((taken + i) % 255));
          taken += got;
        }
      }
      const waiting = whole.reduce((count, byte) => count + (byte === 0 ? 0 : 1), 0);
      assert.equal(waiting, stored - taken, 'only what waits is there');
    }),
    { numRuns: 200 },
  );
  t.ok(taken > 10 * FED_QUEUE_BYTES, `${taken} bytes, round and round`);
  source.close();
  t.ok(
    whole.every((byte) => byte === 0),
    'nothing stays behind',
  );
  t.end();
});

t.test('positions wrap at 2^32', (t) => {
  const place = createFedQueue();
  const control = new Int32Array(place.control);
  const [STORED, TAKEN] = [0, 1];
  const start = (2 ** 32 - FED_QUEUE_BYTES - 100) | 0;
  Atomics.store(control, STORED, start);
  Atomics.store(control, TAKEN, start);
  const producer = new FedQueueProducer(place);
  const source = new FedSource('test', place, new SourceStatus());
  for (let at = 0; at < 4 * FED_QUEUE_BYTES;) {
    const count = Math.min(producer.room(), 1000);
    viewOf(producer.storeAddress, count).fill(1 + (at % 250));
    producer.handOver(count);
    for (let left = count; left > 0;) {
      const got = source.read(target.address, left);
      if (got === 0 || target.bytes[0] !== 1 + (at % 250)) t.fail(`${got} bytes at ${at}`);
      left -= got;
    }
    at += count;
  }
  t.equal(source.read(target.address, 10), 0);
  t.end();
});

t.test('the data plane is woken once, by the first bytes after it found none', (t) => {
  const place = createFedQueue();
  const producer = new FedQueueProducer(place);
  const source = new FedSource('test', place, new SourceStatus());
  t.equal(producer.handOver(8), false, 'no one waits');
  t.equal(source.read(target.address, 100), 8);
  t.equal(source.read(target.address, 100), 0);
  t.equal(producer.handOver(4), true);
  t.equal(producer.handOver(4), false);
  t.equal(source.read(target.address, 100), 8);
  t.end();
});

t.test('what waits of a source that has failed a test since is wiped and skipped', (t) => {
  const place = createFedQueue();
  const producer = new FedQueueProducer(place);
  const status = new SourceStatus();
  const source = new FedSource('test', place, status);
  const whole = viewOf(place.address, FED_QUEUE_BYTES);
  for (let round = 0; round < 5; round++) {
    whole.fill(1);
    producer.handOver(producer.room());
    producer.handOver(producer.room());
    t.equal(producer.room(), 0);
    status.raiseAlarm(false);
    t.equal(source.read(target.address, 100), 0);
    t.ok(whole.every((byte) => byte === 0));
    t.ok(producer.room() > 0);
    viewOf(producer.storeAddress, 400).fill(2);
    producer.handOver(400);
    t.equal(source.read(target.address, 1000), 400, 'what came after the alarm is given');
    t.equal(target.bytes[0], 2);
  }
  t.end();
});

t.test('the producer is woken for half a queue, not for each read', (t) => {
  const place = createFedQueue();
  const producer = new FedQueueProducer(place);
  const source = new FedSource('test', place, new SourceStatus());
  producer.handOver(FED_QUEUE_BYTES);
  const before = producer.moves();
  for (let left = FED_QUEUE_BYTES; left > FED_QUEUE_BYTES / 2 + 1024; left -= 1024)
    source.read(target.address, 1024);
  t.equal(producer.moves(), before);
  source.read(target.address, 1024);
  t.not(producer.moves(), before);
  t.end();
});

/** A thread that waits for room in a full queue, as often as it is told to; word 0 of `turns`: turn, word 1: turns done. */
const WAITER = `
  const { workerData } = require('node:worker_threads');
  import('${new URL('../../../daemon/entropy/fed-queue.js', import.meta.url).href}').then(async ({ FedQueueProducer }) => {
    const turns = new Int32Array(workerData.turns);
    const control = new Int32Array(workerData.place.control);
    const producer = new FedQueueProducer(workerData.place);
    setInterval(() => undefined, 1e6);
    for (let turn = 1; ; turn++) {
      while (Atomics.load(turns, 0) < turn) if (Atomics.load(turns, 0) < 0) process.exit();
      let room = 0;
      for (;;) {
        const moves = producer.moves();
        if (producer.isStopped()) break;
        room = producer.room();
        if (room > 0) break;
        if (turn % 2 === 0) producer.waitForMove(moves, Infinity);
        else await producer.moved(moves, Infinity);
      }
      Atomics.store(turns, 2, room);
      Atomics.store(turns, 1, turn);
      Atomics.notify(turns, 1);
    }
  });
`;
const STOPS = 3000;

t.test(`a stop is never missed by a producer that is about to wait, ${STOPS} times`, async (t) => {
  const place = createFedQueue();
  const control = new Int32Array(place.control);
  const STOP = 2;
  new FedQueueProducer(place).handOver(FED_QUEUE_BYTES);
  const turns = new Int32Array(new SharedArrayBuffer(16));
  const worker = new Worker(WAITER, { eval: true, workerData: { turns: turns.buffer, place } });
  await new Promise((resolve) => worker.once('online', resolve));
  let missed = 0;
  for (let turn = 1; turn <= STOPS && missed === 0; turn++) {
    Atomics.store(control, STOP, 0);
    Atomics.store(turns, 0, turn);
    for (let spin = turn % 1000; spin > 0; spin--) Atomics.load(turns, 3);
    stopFedQueue(place);
    if (Atomics.wait(turns, 1, turn - 1, 5000) === 'timed-out') missed++;
    else if (turns[2] !== 0) t.fail('room in a full queue');
  }
  t.equal(missed, 0);
  Atomics.store(turns, 0, -1);
  await worker.terminate();
});
