// A guest of 8 GiB, sparse: 3 GiB below 4 GiB and the rest above, in two regions that are adjacent in guest-physical
// space. design.md §4 and §5: buffers at the edges of windows (16 MiB) and of views (2^30), and across regions.
//
// Left out: huge pages, which this host does not have.
import t from 'tap';
import { GuestRam } from '../support/guest-ram.js';
import { DriverRing } from '../support/driver-ring.js';
import { Stand } from './stand.js';

const MIB = 1n << 20n;
const GIB = 1n << 30n;
const FILL = 0xa5;
/** Bytes around a buffer that must stay as they are. */
const MARGIN = 64n;
/** Most bytes of one request. */
const MOST_BYTES = 65_536;

const REGIONS = [
  { guestPhysAddr: 0n, bytes: Number(3n * GIB) },
  { guestPhysAddr: 4n * GIB, bytes: Number(2n * GIB) },
  { guestPhysAddr: 6n * GIB, bytes: Number(3n * GIB) },
];

interface Span {
  readonly title: string;
  readonly address: bigint;
  readonly length: number;
  /** True for a buffer that does not lie in guest memory as a whole. */
  readonly outside?: boolean;
}

/** Buffers around an edge: up to it, from it on, across it; words, odd bytes, and long. */
function around(title: string, edge: bigint): Span[] {
  return [
    { title: `up to ${title}`, address: edge - 64n, length: 64 },
    { title: `from ${title} on`, address: edge, length: 64 },
    { title: `across ${title}`, address: edge - 32n, length: 64 },
    { title: `across ${title}, odd`, address: edge - 33n, length: 65 },
    { title: `across ${title}, by one byte`, address: edge - 1n, length: 1023 },
    { title: `across ${title}, a page and more`, address: edge - 4097n, length: 8195 },
  ];
}

const SPANS: readonly Span[] = [
  ...around('16 MiB', 16n * MIB),
  ...around('1 GiB', GIB),
  ...around('2 GiB', 2n * GIB),
  ...around('4 GiB + 16 MiB', 4n * GIB + 16n * MIB),
  ...around('5 GiB', 5n * GIB),
  ...around('6 GiB, where two regions meet', 6n * GIB),
  ...around('7 GiB', 7n * GIB),
  ...around('8 GiB, 2^31 in its region', 8n * GIB),
  { title: '64 KiB across two regions', address: 6n * GIB - 30_001n, length: MOST_BYTES },
  { title: '32 MiB across two regions and a window', address: 6n * GIB - 100n, length: Number(32n * MIB) },
  { title: 'the first bytes', address: 0n, length: 64 },
  { title: 'the last bytes', address: 9n * GIB - 64n, length: 64 },
  { title: 'the last bytes below the gap', address: 3n * GIB - 64n, length: 64 },
  { title: 'the first bytes above the gap', address: 4n * GIB, length: 64 },
  { title: 'into the gap', address: 3n * GIB - 63n, length: 64, outside: true },
  { title: 'in the gap', address: 3n * GIB + 512n * MIB, length: 64, outside: true },
  { title: 'from the gap', address: 4n * GIB - 1n, length: 64, outside: true },
  { title: 'beyond the end', address: 9n * GIB - 63n, length: 64, outside: true },
  { title: 'over the gap', address: 3n * GIB - 32n, length: Number(GIB) + 64, outside: true },
];

/** The parts of a guest-physical range that are memory. */
function views(ram: GuestRam, start: bigint, end: bigint): Buffer[] {
  return REGIONS.flatMap(({ guestPhysAddr, bytes }) => {
    const from = start > guestPhysAddr ? start : guestPhysAddr;
    const regionEnd = guestPhysAddr + BigInt(bytes);
    const to = end < regionEnd ? end : regionEnd;
    return from < to ? [ram.view(from, Number(to - from))] : [];
  });
}

function isUntouched(buffers: readonly Buffer[]): boolean {
  return buffers.every((buffer) => buffer.every((byte) => byte === FILL));
}

const stand = await Stand.start({ devices: 2 });
t.teardown(() => stand.stop());

for (const sealed of [true, false]) {
  t.test(`a guest of 8 GiB in ${sealed ? 'sealed' : 'guarded'} memory`, async (t) => {
    const ram = new GuestRam(REGIONS.map((region) => ({ ...region, sealed })));
    const ring = new DriverRing(ram, 4n * GIB + 8n * MIB, 256);
    await stand.checked(t, (device) => {
      const frontend = device.connect();
      frontend.setUp(ram, ring);
      for (const { title, address, length, outside = false } of SPANS) {
        const given = outside ? 0 : Math.min(length, MOST_BYTES);
        const end = address + BigInt(Math.max(given, 64));
        for (const view of views(ram, address - MARGIN, end + MARGIN)) view.fill(FILL);
        // A request that shares its pass with the one before gets less: the answer comes when that pass has ended.
        t.ok(frontend.answers());
        ring.request(0, address, length);
        frontend.kickRing();
        t.equal(frontend.waitUsed(ring, 1)[0]?.length, given, title);
        if (outside) {
          t.ok(isUntouched(views(ram, address - MARGIN, end + MARGIN)), `${title}: nothing was written`);
          continue;
        }
        const filled = Buffer.concat(views(ram, address, address + BigInt(given)));
        t.equal(filled.length, given);
        t.equal(filled.indexOf(Buffer.alloc(8, FILL)), -1, `${title}: filled`);
        t.ok(isUntouched(views(ram, address - MARGIN, address)), `${title}: nothing before it`);
        t.ok(isUntouched(views(ram, address + BigInt(given), end + MARGIN)), `${title}: nothing behind it`);
      }
    });
    ram.close();
  });
}
