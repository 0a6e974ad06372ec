// What sources give, good and bad, and what guests get of it: nothing of a bad stretch, and each good byte once. Rows 139 to
// 141, 152, F22 and F26 of ARCHITECTURE.md, "Entropy data" and "Faults".
//
// FIFOs stand for devices (`--allow-test-sources`), so what a guest was given is compared with what was written, byte by byte.
// Leaves out: error numbers of devices (row 145), the CPU's (147) and the kernel's own (148, 149): test/daemon/entropy; sources
// that are slow or gone (source-failover.test.ts, faults-source.test.ts).
import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { BLOCK_BYTES, WINDOW_BYTES } from '../../daemon/entropy/health-tests.js';
import { blocks, LOG_MS, replace, withSources } from '../support/fed-sources.js';
import { type Fifo, makeFifo } from '../support/fifo.js';
import { goodBytes } from '../support/good-bytes.js';
import type { Daemon } from '../support/guest/daemon.js';
import { openFiles } from '../support/guest/proc-files.js';
import { delivered, heldMachine, ReadingGuest } from '../support/reading-guest.js';
import { eventually, startRngDaemon } from '../support/rng-daemon.js';

const BAD_BYTES = 10 * BLOCK_BYTES;

/** Bits of which `ones` in 256 are set. */
function biased(length: number, ones: number): Buffer {
  const drawn = goodBytes(8 * length, 1000 + ones);
  return Buffer.from(
    Array.from({ length }, (_, i) =>
      drawn.subarray(8 * i, 8 * i + 8).reduce((byte, draw) => (byte << 1) | (draw < ones ? 1 : 0), 0),
    ),
  );
}

const TEXT = readFileSync(new URL('../../../docs/entropy.md', import.meta.url));
const ERROR_PAGE = '<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>\r\n';

/** What a source gives from some point on, and why it is out then. Patterns begin within a window. */
const BAD: Readonly<
  Record<string, { bytes: (before: Buffer) => Buffer; reason: RegExp; permanent: boolean }>
> = {
  'F22: all zeros': {
    bytes: () => Buffer.alloc(BAD_BYTES),
    reason: /repetition count: \d+ equal samples in a row/,
    permanent: true,
  },
  'F22: stuck at 0xa5': {
    bytes: () => Buffer.alloc(BAD_BYTES, 0xa5),
    reason: /repetition count: \d+ equal samples in a row/,
    permanent: true,
  },
  'row 139: one 32-bit word': {
    bytes: () => Buffer.alloc(BAD_BYTES, '\x12\x9f\x5e\xc3', 'latin1'),
    reason: /adaptive proportion|repeated block/,
    permanent: true,
  },
  'row 139: one block of 64 bytes': {
    bytes: () => Buffer.alloc(BAD_BYTES, goodBytes(64, 900)),
    reason: /repeated block/,
    permanent: true,
  },
  'row 139: the last block of 2,560 bytes again': {
    bytes: (before) => before.subarray(-BLOCK_BYTES),
    reason: /repeated block/,
    permanent: true,
  },
  'row 139: the last 64 bytes again, then good ones': {
    bytes: (before) => Buffer.concat([before.subarray(-64), goodBytes(BAD_BYTES, 901)]),
    reason: /repeated block/,
    permanent: true,
  },
  'row 140: a period of 2 bytes': {
    bytes: () => Buffer.alloc(BAD_BYTES, '\x3c\xd1', 'latin1'),
    reason: /adaptive proportion|repeated block/,
    permanent: true,
  },
  'row 140: a period of 16 bytes': {
    bytes: () => Buffer.alloc(BAD_BYTES, goodBytes(16, 902)),
    reason: /adaptive proportion|repeated block/,
    permanent: true,
  },
  'row 140: a counter of bytes': {
    bytes: () => Buffer.from(Array.from({ length: BAD_BYTES }, (_, i) => i & 0xff)),
    reason: /repeated block/,
    permanent: true,
  },
  'row 140: an HTML error page, again and again': {
    bytes: () => Buffer.alloc(BAD_BYTES, ERROR_PAGE),
    reason: /failed a health test/,
    permanent: true,
  },
  'row 140: text': {
    bytes: () => Buffer.alloc(BAD_BYTES, TEXT),
    reason: /failed a health test/,
    permanent: true,
  },
  'row 141: 60 % ones': { bytes: () => biased(BAD_BYTES, 154), reason: /FIPS 140-2/, permanent: false },
  'row 141: 55 % ones': { bytes: () => biased(BAD_BYTES, 141), reason: /FIPS 140-2/, permanent: false },
};

for (const [title, { bytes, reason, permanent }] of Object.entries(BAD)) {
  const outcome = permanent ? 'out until SIGHUP' : 'back by itself';
  await t.test(`${title}, in mid-stream: not a byte of it is delivered; ${outcome}`, async (t) => {
    const fifo = makeFifo(t);
    const { daemon, path } = await withSources(t, [`file:${fifo.path}`]);
    const guest = new ReadingGuest(t, path);
    const good = blocks(4, 20);
    // The bad bytes begin within a window, at a multiple of 64 bytes.
    const before = Buffer.concat([good.written, goodBytes(128, 21)]);
    fifo.write(before);
    await guest.readTotal(good.given.length);
    fifo.write(bytes(before));
    const [line] = await daemon.waitForLog(/reading file:.* failed: .*\[source_failed\]/, LOG_MS);
    t.match(line, reason);
    t.match(line, permanent ? /stays out until an operator enables it again \(SIGHUP\)/ : /trying again/);
    const next = blocks(2, 22);
    await guest.readAll();
    replace(fifo);
    fifo.write(next.written);
    if (permanent) await stillOut(t, daemon, fifo);
    await guest.readTotal(good.given.length + next.given.length);
    await guest.readAll();
    t.ok(guest.bytes.equals(Buffer.concat([good.given, next.given])), 'byte by byte');
    await daemon.waitForLog(/delivers again: it has passed its start-up test \[source_back\]/, LOG_MS);
    t.match(await daemon.stop(), { code: 0 });
  });
}

/** A source that has failed for good is not even open; SIGHUP enables it. */
async function stillOut(t: Test, daemon: Daemon, fifo: Fifo): Promise<void> {
  t.notOk(openFiles(daemon.pid).includes(fifo.path), 'it stays out');
  process.kill(daemon.pid, 'SIGHUP');
  await daemon.waitForLog(/enabled again \(SIGHUP\): file:.*\[sources_enabled\]/, LOG_MS);
}

await t.test('F26: one bad window, then good ones: out for a start-up test, not for good', async (t) => {
  const fifo = makeFifo(t);
  const { daemon, path } = await withSources(t, [`file:${fifo.path}`]);
  const guest = new ReadingGuest(t, path);
  const good = blocks(3, 23);
  fifo.write(good.written);
  await guest.readTotal(good.given.length);
  // Six equal bytes in a row: good sources give five once in 4 GiB.
  const bad = goodBytes(WINDOW_BYTES, 24).fill(0x77, 300, 306);
  fifo.write(bad);
  await daemon.waitForLog(/repetition count: 6 equal samples in a row .*; trying again/, LOG_MS);
  // What waits when the daemon hears of an alarm is dropped, good bytes too.
  await guest.readAll();
  const next = blocks(3, 25);
  fifo.write(next.written);
  await guest.readTotal(good.given.length + next.given.length);
  await guest.readAll();
  t.ok(guest.bytes.equals(Buffer.concat([good.given, next.given])), 'byte by byte');
  await daemon.waitForLog(/delivers again: .*\[source_back\]/, LOG_MS);
});

await t.test('F22: the first source jams, the second serves: nothing of the jam', async (t) => {
  const [a, b] = [makeFifo(t), makeFifo(t)];
  const { daemon, path } = await withSources(t, [`file:${a.path}`, `file:${b.path}`]);
  const guest = new ReadingGuest(t, path);
  const [ofA, ofB] = [blocks(4, 41), blocks(8, 42)];
  a.write(ofA.written);
  await guest.readTotal(ofA.given.length);
  a.write(Buffer.alloc(BAD_BYTES, 0x42));
  await daemon.waitForLog(/repetition count: .*stays out/, LOG_MS);
  // What waits when the daemon hears of an alarm is dropped, whosever it is.
  await guest.readAll();
  b.write(ofB.written);
  await guest.readTotal(ofA.given.length + ofB.given.length);
  await guest.readAll();
  t.ok(guest.bytes.equals(Buffer.concat([ofA.given, ofB.given])), 'byte by byte');
  // Longer than the first two intervals, at which one that has only ended would be tried again.
  await setTimeout(3500);
  t.notOk(openFiles(daemon.pid).includes(a.path), 'it is not tried again');
});

const GUESTS = 4;
const READ_BYTES = 1 << 20;
const WINDOW_STEP = 4;

await t.test(
  `row 152: ${GUESTS} guests read 1 MiB each (instead of 10^8 windows over 8): no 8 bytes twice`,
  async (t) => {
    const { paths } = await startRngDaemon(t, { devices: GUESTS, args: ['--source=random'] });
    const lengths = [64, 1000, 61, 16_384];
    const guests = paths.map(
      (path, i) => new ReadingGuest(t, path, { size: 64, bytes: 2 << 20, length: lengths[i] ?? 64 }),
    );
    await eventually(() => {
      for (const guest of guests) if (guest.count < READ_BYTES) guest.take();
      return guests.every((guest) => guest.count >= READ_BYTES);
    }, 60_000);
    const parts = guests.flatMap((guest) => guest.parts);
    // Every request begins at a multiple of 4 bytes of what the daemon had, so windows at such a step see any overlap.
    const windows = parts.flatMap((part) =>
      Array.from({ length: Math.max(0, Math.floor((part.length - 8) / WINDOW_STEP) + 1) }, (_, i) =>
        part.readBigUInt64LE(i * WINDOW_STEP),
      ),
    );
    t.ok(windows.length > 900_000, `${windows.length} windows`);
    const sorted = BigUint64Array.from(windows).sort();
    t.equal(
      sorted.findIndex((window, i) => i > 0 && window === sorted[i - 1]),
      -1,
    );
  },
);

await t.test('row 152: each byte of a source goes to one guest, once', async (t) => {
  const fifo = makeFifo(t);
  const { paths } = await startRngDaemon(t, {
    devices: GUESTS,
    args: ['--allow-test-sources', `--source=file:${fifo.path}`],
  });
  const guests = paths.map((path, i) => new ReadingGuest(t, path, { length: 256 << i }));
  const good = blocks(20, 60);
  fifo.write(good.written);
  const all = () => guests.reduce((sum, guest) => sum + guest.count, 0);
  const read = () => {
    for (const guest of guests) guest.take();
    return all() >= good.given.length;
  };
  t.ok(await eventually(read), `${all()} bytes`);
  t.equal(all(), good.given.length);
  // A request that was begun with the end of one block may get its rest from a later one, by multiples of the smallest.
  const pieces = guests.flatMap(({ parts }) =>
    parts.flatMap((part) =>
      Array.from({ length: part.length / 256 }, (_, i) => part.subarray(256 * i, 256 * (i + 1))),
    ),
  );
  const places = pieces.map((piece) => [good.given.indexOf(piece), piece.length]);
  places.sort(([a = 0], [b = 0]) => a - b);
  let end = 0;
  const gap = places.find(([at = -1, length = 0]) => {
    const isNext = at === end;
    end += length;
    return !isNext;
  });
  t.same([gap, end], [undefined, good.given.length], 'without a gap or an overlap');
});

await t.test('delivered bytes come in the order of the ring', async (t) => {
  const fifo = makeFifo(t);
  const { path } = await withSources(t, [`file:${fifo.path}`]);
  const vm = heldMachine(t, path, 640);
  const good = blocks(1, 61);
  fifo.write(good.written);
  t.ok(delivered(vm, 4, 640).equals(good.given));
});
