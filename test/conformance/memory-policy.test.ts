// `--memory`: what is done with guest memory whose file can be shrunk. bad-input.md, "Memory table", rows 57 and 59, and
// fault F12, against the real daemon under each of the three policies.
//
// Left out: F13 and F14 (huge pages, full file systems), which end in the same EFAULT and need a host of their own.
import t from 'tap';
import { maskOf, VirtioFeature } from '../../protocol/features.js';
import { FrontendRequest } from '../../protocol/request.js';
import { waitUntil } from '../support/guest/deadline.js';
import { DEFAULT_FEATURES, type Frontend } from '../support/frontend.js';
import { Stand } from './stand.js';
import { SyntheticGuest } from './synthetic-guest.js';

const RAM_BYTES = 1 << 20;
const UNSEALED = [{ guestPhysAddr: 0x10000n, bytes: RAM_BYTES, sealed: false }];
const SECOND = 0x8000_0000n;
const SEALED_RING = [
  { guestPhysAddr: 0x10000n, bytes: RAM_BYTES },
  { guestPhysAddr: SECOND, bytes: RAM_BYTES, sealed: false },
];

const sealedOnly = await Stand.start({ devices: 2, args: ['--memory=require-sealed'] });
t.teardown(() => sealedOnly.stop());
const guarding = await Stand.start({ devices: 8 });
t.teardown(() => guarding.stop());
const trusting = await Stand.start({ devices: 2, args: ['--memory=trust'] });
t.teardown(() => trusting.stop());

t.test('row 57, require-sealed: unsealed memory: NACK, and the log names the fix', async (t) => {
  const unsealed = new SyntheticGuest({ regions: UNSEALED });
  const codes = await sealedOnly.checked(t, (device) => {
    const frontend = device.connect();
    frontend.negotiate();
    const { regions, fds } = unsealed.ram;
    t.equal(frontend.acknowledged({ request: FrontendRequest.SetMemTable, regions }, fds), false);
    frontend.send({ request: FrontendRequest.SetMemTable, regions }, { fds });
    t.ok(frontend.isClosed(), 'without NEED_REPLY the connection is closed');
  });
  t.strictSame(codes, ['memory_not_sealed']);
  t.match(sealedOnly.daemon.log, /memory-backend-memfd,share=on.*--memory=guard.*\[memory_not_sealed\]/);
  unsealed.close();
});

t.test('row 57, require-sealed: sealed memory is served', async (t) => {
  const guest = new SyntheticGuest();
  await sealedOnly.checked(t, (device) => {
    const frontend = device.connect();
    frontend.setUp(guest.ram, guest.ring);
    t.equal(guest.serveOnce(frontend), undefined);
  });
  guest.close();
});

for (const [policy, stand] of Object.entries({ guard: guarding, trust: trusting })) {
  t.test(`row 57, ${policy}: unsealed memory is served`, async (t) => {
    const guest = new SyntheticGuest({ regions: UNSEALED });
    const codes = await stand.checked(t, (device) => {
      const frontend = device.connect();
      frontend.setUp(guest.ram, guest.ring, {
        features: DEFAULT_FEATURES | maskOf(VirtioFeature.EVENT_IDX),
      });
      for (let i = 0; i < 20; i++) {
        guest.ring.setUsedEvent(guest.ring.usedIndex);
        t.equal(guest.serveOnce(frontend), undefined);
      }
    });
    t.strictSame(codes, []);
    guest.close();
  });
}

interface Truncation {
  readonly title: string;
  readonly guest: () => SyntheticGuest;
  readonly region: number;
  readonly keptBytes: number;
}

const TRUNCATIONS: readonly Truncation[] = [
  {
    title: 'the whole file',
    guest: () => new SyntheticGuest({ regions: UNSEALED }),
    region: 0,
    keptBytes: 0,
  },
  {
    title: 'all behind the descriptor table',
    guest: () => new SyntheticGuest({ regions: UNSEALED }),
    region: 0,
    keptBytes: 0x1_1000,
  },
  {
    title: 'the buffers, behind the ring',
    guest: () => new SyntheticGuest({ regions: UNSEALED }),
    region: 0,
    keptBytes: 0x2_0000,
  },
  {
    title: 'the middle of a buffer',
    guest: () => new SyntheticGuest({ regions: UNSEALED, bufferAt: 0x4_0fe0n }),
    region: 0,
    keptBytes: 0x3_1000,
  },
  {
    title: 'the buffers, in a region of their own beside a sealed one',
    guest: () => new SyntheticGuest({ regions: SEALED_RING, bufferAt: SECOND }),
    region: 1,
    keptBytes: 0,
  },
];

/** Serves once, then takes memory away under the running ring, between publishing a request and its kick. */
function truncateUnder(
  frontend: Frontend,
  { region, keptBytes }: Truncation,
  guest: SyntheticGuest,
): string | undefined {
  frontend.setUp(guest.ram, guest.ring);
  const failed = guest.serveOnce(frontend);
  guest.offer();
  guest.publish();
  guest.ram.truncate(region, keptBytes);
  frontend.kickRing();
  return failed;
}

for (const truncation of TRUNCATIONS) {
  t.test(
    `row 59 and F12, guard: ${truncation.title} vanishes: RING, then served from new memory`,
    async (t) => {
      const guest = truncation.guest();
      const fresh = new SyntheticGuest();
      const codes = await guarding.checked(t, (device) => {
        const frontend = device.connect();
        t.equal(truncateUnder(frontend, truncation, guest), undefined, 'served before');
        t.equal(frontend.waitErr(), 1, 'err is signalled');
        t.equal(guarding.serveBystander(), undefined, 'the bystander is served');
        for (let i = 0; i < 5; i++) frontend.kickRing();
        t.ok(frontend.answers() && frontend.answers(), 'the connection goes on');
        t.equal(frontend.waitErr(0), 0, 'err was signalled once');
        t.equal(frontend.getVringBase(), 1, 'the request was not taken');
        frontend.setMemTable(fresh.ram);
        frontend.startRing(fresh.ram, fresh.ring, 0);
        t.equal(fresh.serveOnce(frontend), undefined);
      });
      t.strictSame(codes, ['memory_vanished']);
      guest.close();
      fresh.close();
    },
  );
}

t.test('F12, trust: the same ends the daemon, which is what guard is for', async (t) => {
  const [truncation] = TRUNCATIONS;
  if (truncation === undefined) return;
  const guest = truncation.guest();
  const frontend = trusting.nextDevice().connect();
  t.equal(truncateUnder(frontend, truncation, guest), undefined, 'served before');
  await waitUntil(
    () => !trusting.daemon.isRunning,
    5000,
    () => 'expected SIGBUS, but the daemon lives',
  );
  frontend.close();
  guest.close();
});
