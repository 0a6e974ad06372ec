// vhost-user, "Ring states" and "Suspended device state", GET_VRING_BASE and RESET_DEVICE: bad-input.md, "Vring set-up",
// rows 81 to 84, and fault F3, against the real daemon, with requests that are held for the limit or for want of entropy.
//
// Left out: wiping the buffers of row 84, since a held request is only peeked and the daemon keeps nothing of it.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { FrontendRequest } from '../../protocol/request.js';
import { openEventfd, readEventfd, signal } from '../../shared-memory/eventfd.js';
import { DEFAULT_FEATURES, type Frontend } from '../support/frontend.js';
import { waitUntil } from '../support/guest/deadline.js';
import { openFiles } from '../support/guest/proc-files.js';
import { Stand } from './stand.js';
import { closeAll, SyntheticGuest } from './synthetic-guest.js';

const PERIOD_MS = 300;
/** Long enough for a period's timer, and for anything else that might still come. */
const QUIET_MS = PERIOD_MS + 200;
const RING_FD = { index: 0, noFd: false } as const;
const { SetVringKick, SetVringCall, SetVringEnable, SetFeatures, ResetDevice } = FrontendRequest;

const unlimited = await Stand.start({ devices: 8 });
t.teardown(() => unlimited.stop());
const limited = await Stand.start({ devices: 8, args: ['--max-bytes=64', `--period=${PERIOD_MS}`] });
t.teardown(() => limited.stop());

/** A way to stop a ring, and the way back to a running one. */
interface Stop {
  readonly title: string;
  readonly stop: (frontend: Frontend) => void;
  readonly start: (frontend: Frontend, guest: SyntheticGuest) => void;
  readonly disconnects?: boolean;
}

const STOPS: readonly Stop[] = [
  {
    title: 'GET_VRING_BASE',
    stop: (frontend) => void frontend.getVringBase(),
    start: (frontend, guest) => frontend.startRing(guest.ram, guest.ring, guest.ring.deviceUsedIndex),
  },
  {
    title: 'SET_VRING_ENABLE 0',
    stop: (frontend) => frontend.expectOk({ request: SetVringEnable, index: 0, num: 0 }),
    start: (frontend) => {
      frontend.expectOk({ request: SetVringEnable, index: 0, num: 1 });
    },
  },
  {
    title: 'RESET_DEVICE',
    stop: (frontend) => frontend.expectOk({ request: ResetDevice }),
    start: (frontend, guest) => {
      frontend.expectOk({ request: SetFeatures, features: DEFAULT_FEATURES });
      frontend.startRing(guest.ram, guest.ring, guest.ring.deviceUsedIndex);
    },
  },
  {
    title: 'RESET_OWNER',
    stop: (frontend) => frontend.expectOk({ request: FrontendRequest.ResetOwner }),
    start: (frontend) => frontend.expectOk({ request: SetVringEnable, index: 0, num: 1 }),
  },
  {
    title: 'the end of the connection (F3)',
    stop: (frontend) => frontend.close(),
    start: () => undefined,
    disconnects: true,
  },
];

for (const { title, stop, start, disconnects = false } of STOPS) {
  for (const [how, stand] of Object.entries({ idle: unlimited, 'with a held request': limited })) {
    const after = disconnects ? '' : ', then served again';
    t.test(`row 81b: ${title}, ${how}: no write, no call whatever is kicked${after}`, async (t) => {
      const guest = new SyntheticGuest();
      const kick = openEventfd();
      const call = openEventfd();
      await stand.checked(t, async (device) => {
        const before = stand.footprint();
        const frontend = device.connect();
        frontend.setUp(guest.ram, guest.ring);
        frontend.expectOk({ request: SetVringKick, ...RING_FD }, [kick]);
        frontend.expectOk({ request: SetVringCall, ...RING_FD }, [call]);
        t.equal(guest.serveOnce(frontend, kick), undefined);
        if (stand === limited) {
          guest.offer();
          guest.publish();
          signal(kick);
          t.ok(frontend.answers() && frontend.answers());
          t.equal(guest.ring.deviceUsedIndex, 1, 'held');
        }
        stop(frontend);
        if (disconnects) await stand.settled(before);
        readEventfd(call);
        guest.offer();
        guest.publish();
        guest.remember();
        for (let i = 0; i < 5; i++) signal(kick);
        await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
        if (!disconnects) t.ok(frontend.answers(), 'replies are still sent');
        t.ok(guest.isUnchanged(), 'no byte of guest memory was written');
        t.ok(readEventfd(call) < 0, 'call was not signalled');
        if (disconnects) return;
        start(frontend, guest);
        const pending = (guest.ring.availIndex - guest.ring.usedIndex) & 0xffff;
        const served = frontend.waitUsed(guest.ring, pending);
        t.ok(served.length > 0 && served.every(({ length }) => length === 64), 'nothing was lost');
      });
      closeAll([kick, call]);
      guest.close();
    });
  }
}

t.test(
  'row 81: GET_VRING_BASE with a request held for the limit answers at once, kick and call closed',
  async (t) => {
    const slow = await Stand.start({ devices: 1, args: ['--max-bytes=64', '--period=3600000'] });
    t.teardown(() => slow.stop());
    const guest = new SyntheticGuest({ index: 65_535 });
    const frontend = slow.nextDevice().connect();
    frontend.setUp(guest.ram, guest.ring);
    t.equal(guest.serveOnce(frontend), undefined);
    for (let i = 0; i < 3; i++) guest.offer();
    guest.publish();
    frontend.kickRing();
    t.ok(frontend.answers() && frontend.answers());
    const eventfds = (): number =>
      openFiles(slow.daemon.pid).filter((file) => file.includes('[eventfd]')).length;
    const held = eventfds();
    const startMs = performance.now();
    t.equal(frontend.getVringBase(), 0, 'the first index that was not served');
    const tookMs = performance.now() - startMs;
    t.ok(tookMs < 500, `answered in ${tookMs.toFixed(1)} ms`);
    t.ok(frontend.answers());
    await waitUntil(
      () => eventfds() === held - 2,
      5000,
      () => `expected kick and call closed, got ${eventfds()} of ${held}`,
    );
    t.strictSame(guest.strayWrites(), []);
    t.equal(guest.ring.deviceUsedIndex, 0, 'one was completed, from index 65535 on');
    frontend.close();
    guest.close();
  },
);

t.test('row 81: the same with a request that is held because no source has bytes', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vhost-rngd-conformance-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const empty = join(folder, 'empty');
  writeFileSync(empty, '');
  const dry = await Stand.start({ devices: 1, args: ['--allow-test-sources', `--source=file:${empty}`] });
  t.teardown(() => dry.stop());
  const guest = new SyntheticGuest();
  const frontend = dry.nextDevice().connect();
  frontend.setUp(guest.ram, guest.ring);
  guest.offer();
  guest.publish();
  frontend.kickRing();
  t.ok(frontend.answers() && frontend.answers());
  const startMs = performance.now();
  t.equal(frontend.getVringBase(), 0);
  t.ok(performance.now() - startMs < 500, 'answered at once');
  guest.remember();
  frontend.waitCall(0);
  frontend.kickRing();
  await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
  t.ok(guest.isUnchanged(), 'no byte of guest memory was written');
  t.equal(guest.ring.deviceUsedIndex, 0, 'not completed');
  t.equal(frontend.waitCall(0), 0, 'call was not signalled');
  t.ok(dry.daemon.isRunning);
  frontend.close();
  guest.close();
});

t.test('row 83: a kick on a ring that was never enabled: no side effect, served once enabled', async (t) => {
  const guest = new SyntheticGuest();
  await unlimited.checked(t, async (device) => {
    const frontend = device.connect();
    frontend.negotiate();
    frontend.setMemTable(guest.ram);
    frontend.expectOk({ request: FrontendRequest.SetVringNum, index: 0, num: 8 });
    frontend.setVringAddr(guest.ram, guest.ring);
    frontend.expectOk({ request: SetVringCall, ...RING_FD }, [frontend.call]);
    frontend.expectOk({ request: SetVringKick, ...RING_FD }, [frontend.kick]);
    guest.offer();
    guest.publish();
    guest.remember();
    for (let i = 0; i < 5; i++) frontend.kickRing();
    await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    t.ok(frontend.answers());
    t.ok(guest.isUnchanged(), 'no byte of guest memory was written');
    t.equal(frontend.waitCall(0), 0, 'call was not signalled');
    frontend.expectOk({ request: SetVringEnable, index: 0, num: 1 });
    t.ok(frontend.waitCall() > 0);
    t.equal(frontend.waitUsed(guest.ring, 1)[0]?.length, 64);
  });
  guest.close();
});

t.test('row 84: RESET_DEVICE clears features and ring, and keeps protocol features and memory', async (t) => {
  const guest = new SyntheticGuest();
  await unlimited.checked(t, (device) => {
    const frontend = device.connect();
    frontend.setUp(guest.ram, guest.ring);
    frontend.expectOk({ request: FrontendRequest.SetStatus, status: 15n });
    t.equal(guest.serveOnce(frontend), undefined);
    frontend.expectOk({ request: ResetDevice });
    t.equal(frontend.getU64(FrontendRequest.GetStatus), 0n, 'the status is cleared');
    t.equal(frontend.getU64(FrontendRequest.GetQueueNum), 1n, 'MQ is still negotiated');
    const enable = { request: SetVringEnable, index: 0, num: 1 } as const;
    t.equal(frontend.acknowledged(enable), false, 'PROTOCOL_FEATURES is no longer acked');
    t.equal(frontend.acknowledged(guest.vringAddr()), false, 'the ring has no size');
    t.equal(frontend.acknowledged({ request: FrontendRequest.SetOwner }), false, 'the owner stays');
    frontend.expectOk({ request: SetFeatures, features: DEFAULT_FEATURES });
    frontend.startRing(guest.ram, guest.ring, 1);
    t.equal(guest.serveOnce(frontend), undefined, 'in the same memory');
  });
  guest.close();
});
