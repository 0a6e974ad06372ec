// Rates from looks at counters: two looks, daemons that begin anew, looks that were missed, limits of any period.
import t from 'tap';
import { ratesBetween, REMEMBERED_LOOKS, TopHistory } from '../../../daemon/ctl/top-history.js';
import { daemonStatus, deviceStatus, sourceStatus } from '../../support/status.js';

const nothing = { bytes: 0, requests: 0, throttledSeconds: 0, starvedSeconds: 0 };

/** A history of one device, looked at each second. */
function watched(bytes: readonly (number | 'missed')[], pid = 100): TopHistory {
  const history = new TopHistory();
  for (const [second, count] of bytes.entries()) {
    if (count === 'missed') history.miss();
    else
      history.look(daemonStatus({ pid, devices: [deviceStatus('web1', { bytes: count })] }), 1000 * second);
  }
  return history;
}

await t.test('rates between two looks', (t) => {
  t.same(
    ratesBetween(
      { bytes: 1000, requests: 10, throttledSeconds: 3, starvedSeconds: 0 },
      { bytes: 9000, requests: 30, throttledSeconds: 4, starvedSeconds: 0.5 },
      4,
    ),
    { bytesPerSecond: 2000, requestsPerSecond: 5, throttled: 0.25, starved: 0.125 },
  );
  t.equal(ratesBetween(nothing, nothing, 0), null, 'no time has passed');
  const held = ratesBetween(nothing, { ...nothing, throttledSeconds: 1.01 }, 1);
  t.equal(held?.throttled, 1, 'the clocks of both ends differ a little: not more than all the time');
  t.end();
});

await t.test('a counter that went back gives no rate, whichever it is', (t) => {
  const before = { bytes: 10, requests: 10, throttledSeconds: 10, starvedSeconds: 10 };
  for (const counter of ['bytes', 'requests', 'throttledSeconds', 'starvedSeconds'] as const)
    t.equal(ratesBetween(before, { ...before, [counter]: 9 }, 1), null, counter);
  t.end();
});

await t.test('the first look has no rate, the second one has', (t) => {
  t.equal(watched([500]).device('web1').latest, null);
  t.equal(watched([500, 1500]).device('web1').latest?.bytesPerSecond, 1000);
  t.equal(watched([500]).device('never seen').latest, null);
  t.end();
});

await t.test(
  'a daemon that begins anew: no rate for one look, also where its counters are above those of before',
  (t) => {
    const history = watched([1000, 2000]);
    const after = (bytes: number, second: number): void =>
      history.look(daemonStatus({ pid: 200, devices: [deviceStatus('web1', { bytes })] }), 1000 * second);
    after(900_000, 2);
    t.equal(history.device('web1').latest, null, 'what the new one has counted is not of this second');
    after(900_500, 3);
    t.equal(history.device('web1').latest?.bytesPerSecond, 500);
    t.same(history.device('web1').past, [1000, null, 500], 'the line goes on, with a gap');
    t.same(history.totalPast, [null, 1000, null, 500]);
    t.end();
  },
);

await t.test('a device that was removed and added again under its name is another one', (t) => {
  const history = watched([1000, 2000]);
  history.look(daemonStatus(), 2000);
  history.look(daemonStatus({ devices: [deviceStatus('web1', { bytes: 7000 })] }), 3000);
  t.equal(history.device('web1').latest, null);
  t.same(history.device('web1').past, []);
  t.end();
});

await t.test('a look that was missed leaves a gap; what was counted meanwhile is known afterwards', (t) => {
  const history = watched([0, 1000, 'missed']);
  t.equal(history.device('web1').latest, null, 'what is old is not shown as if it were now');
  t.equal(history.total, null);
  const later = watched([0, 1000, 'missed', 5000]);
  t.equal(later.device('web1').latest?.bytesPerSecond, 2000, 'over both seconds');
  t.same(later.device('web1').past, [1000, null, 2000]);
  t.end();
});

await t.test('no more looks are kept than are shown', (t) => {
  const history = watched(Array.from({ length: 3 * REMEMBERED_LOOKS }, (_, i) => i * i));
  t.equal(history.device('web1').past.length, REMEMBERED_LOOKS);
  t.equal(history.totalPast.length, REMEMBERED_LOOKS);
  t.end();
});

await t.test('all devices together, and sources', (t) => {
  const history = new TopHistory();
  for (const second of [0, 1]) {
    const devices = ['a', 'b'].map((name) =>
      deviceStatus(name, { bytes: 100 * second, requests: 2 * second }),
    );
    const sources = [sourceStatus('hwrng:/dev/hwrng', { bytes: 4096 * second })];
    history.look(daemonStatus({ devices, sources }), 1000 * second);
  }
  t.same(history.total, { bytesPerSecond: 200, requestsPerSecond: 4 });
  t.equal(history.source('hwrng:/dev/hwrng').latest?.bytesPerSecond, 4096);
  t.end();
});

await t.test('what is used of a limit', (t) => {
  const limit = (
    maxBytes: number,
    periodMs: number,
  ): { maxBytes: number; periodMs: number; burstBytes: number } => ({
    maxBytes,
    periodMs,
    burstBytes: 0,
  });
  const use = (bytes: readonly number[], maxBytes: number, periodMs: number): number | null =>
    watched(bytes).device('web1').limitUse(limit(maxBytes, periodMs));
  t.equal(use([0], 100, 1000), null, 'one look tells nothing');
  t.equal(use([0, 50], 100, 1000), 0.5, 'a period as long as the interval');
  t.equal(use([0, 500], 100, 100), 0.5, 'a shorter one: of all periods in the interval');
  t.equal(use([0, 0, 0, 0, 90], 100, 4000), 0.9, 'a longer one: all of it, not the last second alone');
  t.equal(use([0, 90, 90, 90, 90], 100, 2000), 0, 'what was used before the period is over');
  t.equal(use([0, 60], 100, 60_000), 0.6, 'a period that was not seen whole: at least so much');
  t.equal(use([0, 200], 100, 999), 1, 'two looks that see the bytes of two periods: not more than all');
  t.end();
});
