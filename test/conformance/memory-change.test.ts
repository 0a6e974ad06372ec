// vhost-user, SET_MEM_TABLE on a running device, CONFIGURE_MEM_SLOTS with ADD_MEM_REG and REM_MEM_REG: bad-input.md,
// "Memory table", rows 61 to 67, against the real daemon.
//
// 10,000 memory tables of row 65 are 300. That REM_MEM_REG and SET_MEM_TABLE leave no view behind is seen by the
// mappings that are gone and the daemon that lives; use after unmap itself would be a crash.
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { maskOf, ProtocolFeature } from '../../protocol/features.js';
import { FLAG_VERSION, MAX_PAYLOAD_BYTES } from '../../protocol/header.js';
import type { MemoryRegionPayload } from '../../protocol/message.js';
import { FrontendRequest } from '../../protocol/request.js';
import { openMemfd } from '../../shared-memory/memfd.js';
import { DEFAULT_FEATURES, type Frontend } from '../support/frontend.js';
import { openEventfd } from '../../shared-memory/eventfd.js';
import { checkRefusal, type Refusal, Stage, wire } from './refusals.js';
import { Stand } from './stand.js';
import { closeAll, SyntheticGuest } from './synthetic-guest.js';

const { AddMemReg, RemMemReg, SetMemTable } = FrontendRequest;
const GIB = 1n << 30n;
const SLOTS = maskOf(ProtocolFeature.CONFIGURE_MEM_SLOTS);
/** Two regions: the ring and the usual buffer, and one for more buffers. */
const TWO_REGIONS = [
  { guestPhysAddr: 0x10000n, bytes: 1 << 20 },
  { guestPhysAddr: 0x8000_0000n, bytes: 1 << 20 },
];
const SECOND = 0x8000_0000n;
const OTHER: MemoryRegionPayload = { guestPhysAddr: SECOND, size: 4096n, userAddr: SECOND, mmapOffset: 0n };

function regionOf(guest: SyntheticGuest, index = 0): MemoryRegionPayload {
  return guest.ram.regions[index] ?? OTHER;
}

function rem(title: string, change: (whole: MemoryRegionPayload) => MemoryRegionPayload, fds = 0): Refusal {
  return {
    title,
    code: 'memory_region_unknown',
    message: (guest) =>
      wire(
        { request: RemMemReg, region: change(regionOf(guest)) },
        Array.from({ length: fds }, () => openEventfd()),
      ),
  };
}

const REFUSALS: readonly Refusal[] = [
  rem('63: REM_MEM_REG of an unknown region', () => OTHER),
  rem('63: REM_MEM_REG of the same guest address, other size', (whole) => ({
    ...whole,
    size: whole.size - 4096n,
  })),
  rem('63: REM_MEM_REG of the same guest address, other user address', (whole) => ({
    ...whole,
    userAddr: whole.userAddr + 4096n,
  })),
  rem('63: REM_MEM_REG of an unknown region with an fd', () => OTHER, 1),
  { ...rem('63: REM_MEM_REG before any memory', (whole) => whole), stage: Stage.Negotiated },
  {
    title: '52: ADD_MEM_REG that overlaps',
    code: 'memory_region_overlap',
    message: (guest) =>
      wire({ request: AddMemReg, region: { ...regionOf(guest), userAddr: SECOND } }, [
        openMemfd('rngd', 1 << 20),
      ]),
  },
  {
    title: '31: ADD_MEM_REG without an fd',
    code: 'memory_fd_count',
    message: () => wire({ request: AddMemReg, region: OTHER }),
  },
  {
    title: '31: ADD_MEM_REG with two fds',
    code: 'surplus_fds',
    message: () =>
      wire({ request: AddMemReg, region: OTHER }, [openMemfd('rngd', 4096), openMemfd('rngd', 4096)]),
  },
  {
    title: '48: ADD_MEM_REG of size 0',
    code: 'memory_region_empty',
    message: () => wire({ request: AddMemReg, region: { ...OTHER, size: 0n } }, [openMemfd('rngd', 4096)]),
  },
];

const plain = await Stand.start({ devices: 6 });
t.teardown(() => plain.stop());
const slotted = await Stand.start({ devices: REFUSALS.length + 6, args: ['--mem-slots=8'] });
t.teardown(() => slotted.stop());

/** Checks that a ring has stopped with one signal on err, and that the connection goes on. */
function expectStopped(t: Test, frontend: Frontend): void {
  t.equal(frontend.waitErr(), 1, 'err is signalled');
  for (let i = 0; i < 3; i++) frontend.kickRing();
  t.equal(frontend.answers() && frontend.answers(), true, 'the connection goes on');
  t.equal(frontend.waitErr(0), 0, 'err was signalled once');
}

t.test('row 61: SET_MEM_TABLE of the same memory while the ring runs: nothing is lost', async (t) => {
  const guest = new SyntheticGuest();
  await plain.checked(t, async (device) => {
    const frontend = device.connect();
    frontend.setUp(guest.ram, guest.ring);
    const held = await plain.steadyFootprint(frontend);
    for (let i = 0; i < 200; i++) {
      guest.offer();
      guest.publish();
      frontend.kickRing();
      frontend.setMemTable(guest.ram);
      if (frontend.waitUsed(guest.ring, 1)[0]?.length !== 64) t.fail(`round ${i}`);
    }
    t.equal(guest.ring.deviceUsedIndex, 200, 'each was completed once');
    t.equal(guest.serveOnce(frontend), undefined);
    await plain.holdsNoMoreThan(held, frontend);
  });
  guest.close();
});

t.test('row 61: SET_MEM_TABLE of other memory at the same addresses: the ring goes on there', async (t) => {
  const first = new SyntheticGuest();
  const second = new SyntheticGuest({ index: 1 });
  await plain.checked(t, (device) => {
    const frontend = device.connect();
    frontend.setUp(first.ram, first.ring);
    t.equal(first.serveOnce(frontend), undefined);
    first.offer();
    frontend.setMemTable(second.ram);
    first.publish();
    t.equal(second.serveOnce(frontend), undefined);
    t.equal(first.ring.deviceUsedIndex, 1, 'the old memory is left alone');
    t.equal(first.isFilled(), true);
  });
  first.close();
  second.close();
});

t.test('row 61: SET_MEM_TABLE that no longer covers the ring: RING, until it is set up again', async (t) => {
  const guest = new SyntheticGuest();
  const codes = await plain.checked(t, (device) => {
    const frontend = device.connect();
    frontend.setUp(guest.ram, guest.ring);
    t.equal(guest.serveOnce(frontend), undefined);
    const fd = openMemfd('rngd', 4096);
    frontend.expectOk({ request: SetMemTable, regions: [OTHER] }, [fd]);
    closeAll([fd]);
    guest.offer();
    guest.publish();
    expectStopped(t, frontend);
    t.strictSame(guest.strayWrites(), []);
    frontend.setMemTable(guest.ram);
    frontend.setVringAddr(guest.ram, guest.ring);
    frontend.expectOk({ request: FrontendRequest.SetVringKick, index: 0, noFd: false }, [frontend.kick]);
    t.equal(frontend.waitUsed(guest.ring, 1)[0]?.length, 64, 'what was pending is served');
    t.equal(guest.serveOnce(frontend), undefined);
  });
  t.strictSame(codes, ['vring_uncovered']);
  guest.close();
});

for (const refused of REFUSALS)
  t.test(`row ${refused.title}: NACK`, (t) => checkRefusal(t, slotted, refused));

t.test('CONFIGURE_MEM_SLOTS: regions come and go one by one, at most 8', async (t) => {
  const guest = new SyntheticGuest({ regions: TWO_REGIONS });
  const codes = await slotted.checked(t, async (device) => {
    const frontend = device.connect();
    frontend.negotiate(DEFAULT_FEATURES, SLOTS);
    t.equal(frontend.getU64(FrontendRequest.GetMaxMemSlots), 8n);
    guest.ram.regions.forEach((region, i) =>
      frontend.expectOk({ request: AddMemReg, region }, guest.ram.fds.slice(i, i + 1)),
    );
    frontend.startRing(guest.ram, guest.ring, 0);
    t.equal(guest.serveOnce(frontend), undefined);
    const held = await slotted.steadyFootprint(frontend);
    const fd = openMemfd('rngd', 4096);
    for (let i = 2n; i <= 8n; i++) {
      const region = { ...OTHER, guestPhysAddr: i << 40n, userAddr: i << 40n };
      const added = frontend.acknowledged({ request: AddMemReg, region }, [fd]);
      t.equal(added, i < 8n, `region ${i.toString()}`);
    }
    t.equal(guest.serveOnce(frontend), undefined);
    for (let i = 2n; i < 8n; i++) {
      const region = { ...OTHER, guestPhysAddr: i << 40n, userAddr: i << 40n };
      frontend.expectOk({ request: RemMemReg, region }, i === 2n ? [fd] : []);
      t.equal(frontend.acknowledged({ request: RemMemReg, region }), false, 'gone is gone');
    }
    closeAll([fd]);
    t.equal(guest.serveOnce(frontend), undefined);
    await slotted.holdsNoMoreThan(held, frontend);
    guest.offer(SECOND, 64);
    guest.publish();
    frontend.kickRing();
    t.equal(frontend.waitUsed(guest.ring, 1)[0]?.length, 64, 'a buffer in the second region');
    frontend.expectOk({ request: RemMemReg, region: regionOf(guest, 1) });
    guest.offer(SECOND, 64);
    guest.remember();
    guest.ring.publish();
    frontend.kickRing();
    t.equal(frontend.waitUsed(guest.ring, 1)[0]?.length, 0, 'and none there once it is gone');
  });
  t.strictSame(codes, ['memory_slots', 'memory_region_unknown']);
  guest.close();
});

t.test('row 64: REM_MEM_REG of the region that holds the running ring: RING, unmapped', async (t) => {
  const guest = new SyntheticGuest();
  const codes = await slotted.checked(t, async (device) => {
    const frontend = device.connect();
    frontend.negotiate(DEFAULT_FEATURES, SLOTS);
    frontend.expectOk({ request: AddMemReg, region: regionOf(guest) }, guest.ram.fds);
    frontend.startRing(guest.ram, guest.ring, 0);
    t.equal(guest.serveOnce(frontend), undefined);
    const held = await slotted.steadyFootprint(frontend);
    guest.offer();
    frontend.expectOk({ request: RemMemReg, region: regionOf(guest) });
    guest.publish();
    expectStopped(t, frontend);
    t.strictSame(guest.strayWrites(), []);
    await slotted.holdsNoMoreThan({ ...held, mappings: held.mappings - 1 }, frontend);
    frontend.expectOk({ request: AddMemReg, region: regionOf(guest) }, guest.ram.fds);
    frontend.setVringAddr(guest.ram, guest.ring);
    frontend.expectOk({ request: FrontendRequest.SetVringKick, index: 0, noFd: false }, [frontend.kick]);
    t.equal(frontend.waitUsed(guest.ring, 1)[0]?.length, 64, 'served when the region is back');
  });
  t.strictSame(codes, ['vring_uncovered']);
  guest.close();
});

t.test(
  'row 64: REM_MEM_REG of the region with the buffer of a held request: dropped, completed with 0',
  async (t) => {
    const limited = await Stand.start({
      devices: 1,
      args: ['--mem-slots=8', '--max-bytes=64', '--period=1000'],
    });
    t.teardown(() => limited.stop());
    const guest = new SyntheticGuest({ regions: TWO_REGIONS });
    await limited.checked(t, (device) => {
      const frontend = device.connect();
      frontend.negotiate(DEFAULT_FEATURES, SLOTS);
      frontend.setMemTable(guest.ram);
      frontend.startRing(guest.ram, guest.ring, 0);
      t.equal(guest.serveOnce(frontend), undefined);
      guest.offer(SECOND, 64);
      guest.publish();
      frontend.kickRing();
      t.ok(frontend.answers() && frontend.answers());
      t.equal(guest.ring.deviceUsedIndex, 1, 'held for the limit');
      frontend.expectOk({ request: RemMemReg, region: regionOf(guest, 1) });
      t.equal(frontend.waitUsed(guest.ring, 1)[0]?.length, 0);
      t.ok(guest.ram.view(SECOND, 64).equals(Buffer.alloc(64, 0xa5)), 'its buffer is untouched');
      t.strictSame(guest.strayWrites(), []);
      t.equal(guest.serveOnce(frontend), undefined, 'the next is served');
    });
    guest.close();
  },
);

t.test(
  'row 65: 300 memory tables of 8 times 1 GiB: nothing grows; mappings without swap and core dump',
  async (t) => {
    const regions = Array.from({ length: 8 }, (_, i) => ({
      guestPhysAddr: BigInt(i) * GIB,
      size: GIB,
      userAddr: BigInt(i) * GIB,
      mmapOffset: 0n,
    }));
    await plain.checked(t, async (device) => {
      const fds = regions.map(() => openMemfd('rngd', Number(GIB)));
      const frontend = device.connect();
      frontend.negotiate();
      frontend.expectOk({ request: SetMemTable, regions }, fds);
      const held = await plain.steadyFootprint(frontend);
      const sizeKib = virtualKib(plain.daemon.pid);
      let most = 0;
      for (let i = 0; i < 300; i++) {
        frontend.expectOk({ request: SetMemTable, regions }, fds);
        if (i % 10 === 0) most = Math.max(most, plain.footprint().mappings);
      }
      t.ok(most <= held.mappings + 512, `${most - held.mappings} mappings wait to be unmapped at most`);
      t.ok(frontend.answers());
      await plain.holdsNoMoreThan(held, frontend);
      const grownKib = virtualKib(plain.daemon.pid) - sizeKib;
      t.ok(grownKib < 1024 * 1024, `virtual memory grew by ${grownKib} KiB`);
      const flags = vmFlags(plain.daemon.pid);
      t.ok(flags.length > 0);
      for (const text of flags) {
        t.match(text, / dd( |$)/, 'MADV_DONTDUMP');
        t.match(text, / nr( |$)/, 'MAP_NORESERVE');
      }
      closeAll(fds);
    });
  },
);

function virtualKib(pid: number): number {
  return Number(/VmSize:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

/** Flags of each mapping of guest memory. Source: proc(5), /proc/PID/smaps. */
function vmFlags(pid: number): string[] {
  const smaps = readFileSync(`/proc/${pid}/smaps`, 'utf8');
  return [...smaps.matchAll(/memfd:rngd[\s\S]*?VmFlags:(.*)/g)].map(([, flags = '']) => flags);
}

t.test('row 67: SET_MEM_TABLE with more regions than a message may hold: the connection ends', async (t) => {
  const codes = await slotted.checked(t, (device) => {
    const frontend = device.connect();
    frontend.negotiate(DEFAULT_FEATURES, SLOTS);
    t.equal(frontend.getU64(FrontendRequest.GetMaxMemSlots), 8n);
    const size = 8 + 128 * 32;
    t.ok(size > MAX_PAYLOAD_BYTES);
    frontend.sendBytes(new Uint8Array(Uint32Array.of(SetMemTable, FLAG_VERSION, size).buffer));
    t.ok(frontend.isClosed());
  });
  t.strictSame(codes, ['payload_too_large']);
});
