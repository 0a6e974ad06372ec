// vhost-user, "Memory regions description", SET_MEM_TABLE, ADD_MEM_REG and REM_MEM_REG: bad-input.md, "Memory table",
// rows 47 to 67, against the real daemon. What may be shrunk (rows 57, 59) is in memory-policy.test.ts, addresses and
// sizes of real guests in large-guest.test.ts.
//
// Left out: a character device as guest memory (row 55), which cannot be configured in this version: it is refused.
// 10,000 memory tables of row 65 are 300.
import { execFileSync } from 'node:child_process';
import { openSync } from 'node:fs';
import { tmpdir } from 'node:os';
import t from 'tap';
import { U32_BYTES, Writer } from '../../protocol/cursor.js';
import type { MemoryRegionPayload } from '../../protocol/message.js';
import { FrontendRequest } from '../../protocol/request.js';
import { openEventfd } from '../../shared-memory/eventfd.js';
import { asFd, type Fd } from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import { openMemfd } from '../../shared-memory/memfd.js';
import { openSocket } from '../../shared-memory/unix-socket.js';
import { openPipe } from '../support/fd-kinds.js';
import type { RegionPlan } from '../support/guest-ram.js';
import { checkRefusal, type Refusal, Stage, wire, type WireMessage } from './refusals.js';
import { Stand } from './stand.js';
import { closeAll, SyntheticGuest } from './synthetic-guest.js';

const PAGE = 4096n;
const U64_END = 1n << 64n;
/** Source: linux/fcntl.h. */
const F_SEAL_WRITE = 0x0008;
const F_SEAL_FUTURE_WRITE = 0x0010;

const PLAIN: MemoryRegionPayload = {
  guestPhysAddr: 0x10_0000n,
  size: PAGE,
  userAddr: 0x70_0000n,
  mmapOffset: 0n,
};

function table(regions: readonly MemoryRegionPayload[], fds?: readonly Fd[]): WireMessage {
  return wire(
    { request: FrontendRequest.SetMemTable, regions },
    fds ?? regions.map(() => openMemfd('rngd', 1 << 20)),
  );
}

/** A refusal of one region that differs from a sound one, or of a sound one with another fd. */
function region(title: string, code: string, change: Partial<MemoryRegionPayload>, open?: () => Fd): Refusal {
  return { title, code, message: () => table([{ ...PLAIN, ...change }], open && [open()]) };
}

/** Row 47: a count, a padding and regions that need not agree; no more fds than a message may bring. */
function counted(title: string, code: string, count: number, padding: number): Refusal {
  const regions = Math.min(Math.max(1, count), 33);
  return {
    title,
    code,
    message: () => ({
      request: FrontendRequest.SetMemTable,
      payload: new Writer(2 * U32_BYTES + 32 * regions)
        .u32(count)
        .u32(padding)
        .zeros(32 * regions)
        .finish(),
      fds: [openMemfd('rngd', 4096)],
    }),
  };
}

function pair(
  title: string,
  first: Partial<MemoryRegionPayload>,
  second: Partial<MemoryRegionPayload>,
): Refusal {
  return {
    title,
    code: 'memory_region_overlap',
    message: () =>
      table([
        { ...PLAIN, size: 4n * PAGE, ...first },
        { ...PLAIN, size: 4n * PAGE, ...second },
      ]),
  };
}

function readOnlyFile(): Fd {
  const path = `/proc/self/fd/${openMemfd('rngd', 1 << 20)}`;
  const reopened = asFd(openSync(path, 'r'));
  closeAll([asFd(Number(path.split('/').at(-1)))]);
  return reopened;
}

function sealedWith(seal: number): Fd {
  const fd = openMemfd('rngd', 1 << 20);
  libc.fcntl(fd, libc.F_ADD_SEALS, seal);
  return fd;
}

const last = U64_END - PAGE;
const REFUSALS: readonly Refusal[] = [
  counted('47: no regions', 'mem_region_count', 0, 0),
  counted('47: 9 regions', 'mem_region_count', 9, 0),
  counted('47: 33 regions', 'mem_region_count', 33, 0),
  counted('47: 0xFFFFFFFF regions', 'mem_region_count', 0xffff_ffff, 0),
  counted('47: padding that is not zero', 'padding_not_zero', 1, 1),
  region('48: size 0', 'memory_region_empty', { size: 0n }),
  region('49: guest address + size wraps', 'memory_region_wraps', { guestPhysAddr: last, size: PAGE + 1n }),
  region('49: user address + size wraps', 'memory_region_wraps', { userAddr: last, size: PAGE + 1n }),
  region('49: offset + size wraps', 'memory_region_wraps', { mmapOffset: last, size: PAGE + 1n }),
  region('49: size 2^64 - 1', 'memory_region_wraps', { size: U64_END - 1n }),
  region('51: size 2^53 + 1 of a small file', 'memory_file_short', { size: (1n << 53n) + 1n }),
  region('51: offset 2^53 + 1 in a small file', 'memory_file_short', { mmapOffset: (1n << 53n) + 1n }),
  region('51: size 2^63 of a small file', 'memory_file_short', { size: 1n << 63n }),
  region('51: one byte more than the file has', 'memory_file_short', { size: (1n << 20n) + 1n }),
  region('51: offset by which one byte is missing', 'memory_file_short', {
    mmapOffset: (1n << 20n) - PAGE + 1n,
  }),
  pair('52: overlap in guest addresses', {}, { guestPhysAddr: 0x10_3000n, userAddr: 0n }),
  pair('52: overlap in guest addresses by one byte', { guestPhysAddr: 0x10_3fffn }, { userAddr: 0n }),
  pair('52: overlap in user addresses', {}, { guestPhysAddr: 0n, userAddr: 0x70_3000n }),
  pair('52: identical regions', {}, {}),
  pair(
    '52: overlap at 2^63, one byte',
    { guestPhysAddr: 1n << 63n },
    {
      guestPhysAddr: (1n << 63n) + 4n * PAGE - 1n,
      userAddr: 0n,
    },
  ),
  region('55: a pipe', 'memory_fd_kind', {}, () => {
    const [read, write] = openPipe();
    closeAll([write]);
    return read;
  }),
  region('55: a socket', 'memory_fd_kind', {}, () => asFd(openSocket({ nonBlocking: true }))),
  region('55: a directory', 'memory_fd_kind', {}, () => asFd(openSync(tmpdir(), 'r'))),
  region('55: an eventfd', 'memory_fd_kind', {}, openEventfd),
  region('55: /dev/zero', 'memory_fd_kind', {}, () => asFd(openSync('/dev/zero', 'r+'))),
  region('56: a file opened read-only', 'memory_map_failed', {}, readOnlyFile),
  region('56: F_SEAL_WRITE', 'memory_map_failed', {}, () => sealedWith(F_SEAL_WRITE)),
  region('56: F_SEAL_FUTURE_WRITE', 'memory_map_failed', {}, () => sealedWith(F_SEAL_FUTURE_WRITE)),
  region('F11: more than the address space', 'memory_map_failed', { size: 1n << 50n }, () => {
    return fileOf(1n << 50n);
  }),
  {
    title: '60: SET_MEM_TABLE that fails at region 3 of 5',
    code: 'memory_map_failed',
    message: () => {
      const regions = Array.from({ length: 5 }, (_, i) => ({
        ...PLAIN,
        guestPhysAddr: BigInt(i) << 20n,
        userAddr: BigInt(i) << 20n,
      }));
      return table(
        regions,
        regions.map((_, i) => (i === 2 ? readOnlyFile() : openMemfd('rngd', 1 << 20))),
      );
    },
  },
  { ...region('60: a first table that fails', 'memory_region_empty', { size: 0n }), stage: Stage.Negotiated },
];

/** A sparse file of a size that node's ftruncate does not take. */
function fileOf(bytes: bigint): Fd {
  const fd = openMemfd('rngd', 0, { sealed: false });
  execFileSync('truncate', ['-s', bytes.toString(), `/proc/${process.pid}/fd/${fd}`]);
  libc.fcntl(fd, libc.F_ADD_SEALS, libc.F_SEAL_SHRINK);
  return fd;
}

const stand = await Stand.start({ devices: REFUSALS.length + 12 });
t.teardown(() => stand.stop());

for (const refused of REFUSALS) t.test(`row ${refused.title}: NACK`, (t) => checkRefusal(t, stand, refused));

/** Row 51, addresses that a double rounds: the request lies at odd places far above 2^53. */
const HIGH: readonly { title: string; plan: RegionPlan }[] = [
  { title: 'guest address above 2^53', plan: { guestPhysAddr: (1n << 60n) + PAGE, bytes: 1 << 20 } },
  {
    title: 'guest and user address up to the very end of 64 bits',
    plan: { guestPhysAddr: U64_END - (1n << 20n), bytes: 1 << 20, userAddr: U64_END - (1n << 20n) },
  },
  {
    title: 'user address 2^53 + 16, which is no page',
    plan: { guestPhysAddr: 1n << 53n, bytes: 1 << 20, userAddr: (1n << 53n) + PAGE },
  },
];
for (const { title, plan } of HIGH) {
  t.test(`row 51: ${title}: exact`, async (t) => {
    const start = plan.guestPhysAddr;
    const guest = new SyntheticGuest({
      regions: [plan],
      ringAt: start + 0x1_0000n,
      bufferAt: start + 0x4_0001n,
    });
    await stand.checked(t, (device) => {
      const frontend = device.connect();
      frontend.setUp(guest.ram, guest.ring);
      t.equal(guest.serveOnce(frontend), undefined, 'at an odd address');
      const lastByte = start + BigInt(plan.bytes) - 1n;
      guest.offer(lastByte, 1);
      guest.publish();
      frontend.kickRing();
      t.equal(frontend.waitUsed(guest.ring, 1)[0]?.length, 1, 'the last byte of the region');
      t.strictSame(guest.strayWrites(), []);
      const outside = (lastByte + 1n) % U64_END;
      guest.ring.request(2, outside, 1);
      guest.remember();
      frontend.kickRing();
      t.equal(frontend.waitUsed(guest.ring, 1)[0]?.length, 0, 'the byte behind it is refused');
      t.strictSame(guest.strayWrites(), []);
    });
    guest.close();
  });
}

t.test('row 51: an offset above 2^53 in a sparse file is mapped exactly', async (t) => {
  const offset = (1n << 54n) + PAGE;
  const fd = fileOf(offset + (1n << 20n));
  const guest = new SyntheticGuest();
  await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.negotiate();
    const behind = {
      guestPhysAddr: 0x4000_0000n,
      size: 1n << 20n,
      userAddr: 0x4000_0000n,
      mmapOffset: offset,
    };
    frontend.expectOk({ request: FrontendRequest.SetMemTable, regions: [...guest.ram.regions, behind] }, [
      ...guest.ram.fds,
      fd,
    ]);
    frontend.startRing(guest.ram, guest.ring, 0);
    guest.offer(0x4000_0000n, 4096);
    guest.publish();
    frontend.kickRing();
    t.equal(frontend.waitUsed(guest.ring, 1)[0]?.length, 4096);
    t.strictSame(guest.strayWrites(), []);
    const options = { maxBuffer: 1 << 20, encoding: 'buffer' } as const;
    const args = (skip: bigint): string[] => [
      `if=/proc/${process.pid}/fd/${fd}`,
      'bs=4096',
      `skip=${(skip / PAGE).toString()}`,
      'count=1',
      'status=none',
    ];
    t.notSame(execFileSync('dd', args(offset), options), Buffer.alloc(4096), 'the page was filled');
    t.same(execFileSync('dd', args(offset + PAGE), options), Buffer.alloc(4096), 'the next one was not');
    t.same(execFileSync('dd', args(offset - PAGE), options), Buffer.alloc(4096), 'nor the one before');
  });
  closeAll([fd]);
  guest.close();
});

/** Row 53: what the daemon is told begins and ends inside the guest's pages; the addresses stay what they are. */
for (const bytes of [512n, 16n, 3n]) {
  t.test(
    `row 53: an offset and a size that are off a page by ${bytes}: never a shifted mapping`,
    async (t) => {
      const guest = new SyntheticGuest();
      await stand.checked(t, (device) => {
        const frontend = device.connect();
        frontend.negotiate();
        const regions = guest.ram.regions.map((whole) => ({
          guestPhysAddr: whole.guestPhysAddr + bytes,
          size: whole.size - 2n * bytes,
          userAddr: whole.userAddr + bytes,
          mmapOffset: whole.mmapOffset + bytes,
        }));
        frontend.expectOk({ request: FrontendRequest.SetMemTable, regions }, guest.ram.fds);
        frontend.startRing(guest.ram, guest.ring, 0);
        t.equal(guest.serveOnce(frontend), undefined);
        const first = 0x1_0000n + bytes;
        const end = 0x11_0000n - bytes;
        const edges: readonly [bigint, number, number][] = [
          [first, 8, 8],
          [first - 1n, 8, 0],
          [end - 8n, 8, 8],
          [end - 7n, 8, 0],
        ];
        for (const [address, length, given] of edges) {
          guest.offer(address, length);
          guest.publish();
          frontend.kickRing();
          t.equal(frontend.waitUsed(guest.ring, 1)[0]?.length, given, `0x${address.toString(16)}`);
          t.strictSame(guest.strayWrites(), []);
        }
      });
      guest.close();
    },
  );
}

t.test('row 53: an offset that puts an aligned ring off its alignment here: NACK', async (t) => {
  const guest = new SyntheticGuest();
  const codes = await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.negotiate();
    const regions = guest.ram.regions.map((whole) => ({ ...whole, size: whole.size - 1n, mmapOffset: 1n }));
    frontend.expectOk({ request: FrontendRequest.SetMemTable, regions }, guest.ram.fds);
    frontend.expectOk({ request: FrontendRequest.SetVringNum, index: 0, num: 8 });
    t.equal(frontend.acknowledged(guest.vringAddr()), false);
    frontend.setMemTable(guest.ram);
    frontend.startRing(guest.ram, guest.ring, 0);
    t.equal(guest.serveOnce(frontend), undefined, 'served from a sound table');
    t.equal(
      frontend.acknowledged({ request: FrontendRequest.SetMemTable, regions }, guest.ram.fds),
      true,
      'a running ring stops when it is moved there',
    );
    t.equal(frontend.waitErr(), 1);
    t.ok(frontend.answers());
  });
  t.strictSame(codes, ['vring_alignment']);
  guest.close();
});
