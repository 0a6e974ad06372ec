// A source's status: what one thread writes another reads, the slow state that nobody stores, and the operator's word.
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { HEALTH_COUNTS, HealthCount } from '../../../daemon/entropy/health-tests.js';
import { REFILL_BOUNDS_SECONDS, REFILL_BUCKETS } from '../../../daemon/entropy/refill-times.js';
import { SLOW_AFTER_MS, SourceStatus } from '../../../daemon/entropy/source-status.js';

const NOW_MS = 1e6;

t.test('a new status: starting, nothing counted', (t) => {
  const status = new SourceStatus();
  t.equal(status.stored, 'starting');
  t.equal(status.stateAt(NOW_MS), 'starting');
  t.equal(status.alarms, 0);
  t.equal(status.permanent, false);
  t.equal(status.takeEnable(), false);
  for (const name of ['waitingSinceMs', 'releasedBytes', 'failures'] as const)
    t.equal(status.figure(name), 0, name);
  t.same([...status.counts], new Array(HEALTH_COUNTS).fill(0));
  t.end();
});

t.test('words, figures and counts lie side by side: none changes another', (t) => {
  const status = new SourceStatus();
  status.setState('healthy');
  status.raiseAlarm(true);
  status.setFigure('waitingSinceMs', 1.5);
  status.setFigure('releasedBytes', 2 ** 53 - 1);
  status.setFigure('failures', 3);
  for (let i = 0; i < HEALTH_COUNTS; i++) status.counts[i] = 100 + i;
  t.equal(status.stored, 'healthy');
  t.equal(status.alarms, 1);
  t.equal(status.permanent, true);
  t.equal(status.figure('waitingSinceMs'), 1.5);
  t.equal(status.figure('releasedBytes'), 2 ** 53 - 1);
  t.equal(status.figure('failures'), 3);
  t.equal(status.counts[HealthCount.Windows], 100);
  t.equal(status.counts[HEALTH_COUNTS - 1], 99 + HEALTH_COUNTS);
  t.end();
});

t.test('slow: a source that has kept its reader waiting, unless it has failed', (t) => {
  const status = new SourceStatus();
  for (const stored of ['starting', 'healthy'] as const) {
    status.setState(stored);
    status.setFigure('waitingSinceMs', NOW_MS);
    t.equal(status.stateAt(NOW_MS), stored);
    t.equal(status.stateAt(NOW_MS + SLOW_AFTER_MS - 1), stored);
    t.equal(status.stateAt(NOW_MS + SLOW_AFTER_MS), 'slow');
    t.equal(status.stored, stored, 'not stored');
    status.setFigure('waitingSinceMs', 0);
    t.equal(status.stateAt(NOW_MS + 1e9), stored, 'nobody waits');
  }
  status.setState('failed');
  status.setFigure('waitingSinceMs', NOW_MS);
  t.equal(status.stateAt(NOW_MS + 1e9), 'failed');
  t.end();
});

t.test('the kind of the last alarm counts; an enable is taken once and ends a permanent failure', (t) => {
  const status = new SourceStatus();
  status.raiseAlarm(true);
  status.enable();
  status.enable();
  t.equal(status.permanent, true, 'until its reader has taken it');
  t.equal(status.takeEnable(), true);
  t.equal(status.permanent, false);
  t.equal(status.takeEnable(), false, 'two are one');
  status.raiseAlarm(true);
  status.raiseAlarm(false);
  t.equal(status.permanent, false);
  t.equal(status.alarms, 3, 'an enable takes no alarm back');
  t.end();
});

const WRITER = `
  const { parentPort, workerData } = require('node:worker_threads');
  import('${new URL('../../../daemon/entropy/source-status.js', import.meta.url).href}').then(({ SourceStatus }) => {
    const status = new SourceStatus(workerData);
    const enabled = status.takeEnable();
    status.setState('failed');
    status.raiseAlarm(true);
    status.setFigure('releasedBytes', 2560);
    status.counts[${HealthCount.FipsBlocks}] = 7;
    parentPort.postMessage(enabled);
  });
`;

t.test('what the thread of the source writes the others read, and the other way round', async (t) => {
  const status = new SourceStatus();
  status.enable();
  const worker = new Worker(WRITER, { eval: true, workerData: status.place });
  t.same(await once(worker, 'message'), [true], 'the enable arrived');
  t.equal(status.stored, 'failed');
  t.equal(status.permanent, true);
  t.equal(status.alarms, 1);
  t.equal(status.figure('releasedBytes'), 2560);
  t.equal(status.counts[HealthCount.FipsBlocks], 7);
  t.equal(status.takeEnable(), false);
  await worker.terminate();
});

t.test('blocks are counted by how long they took, each in one bucket', (t) => {
  const status = new SourceStatus();
  t.equal(REFILL_BOUNDS_SECONDS.length, REFILL_BUCKETS);
  for (const [i, bound] of REFILL_BOUNDS_SECONDS.entries()) {
    status.refilled(bound * 1000);
    status.refilled(bound * 1000 * 1.01);
    t.equal(status.refills[i], i === 0 ? 1 : 2, `up to ${bound} s, the bound included`);
  }
  t.equal(status.refills[REFILL_BUCKETS], 1, 'what is longer than all bounds');
  const sumMs = 2.01 * 1000 * REFILL_BOUNDS_SECONDS.reduce((sum, bound) => sum + bound, 0);
  t.ok(Math.abs(status.figure('refillSumMs') - sumMs) < 1e-6 * sumMs);
  t.end();
});
