// What sources give, good and bad, and what guests get of it: nothing of a bad stretch, the next source meanwhile, or nothing at
// all. Rows 139 to 144, 151, 152 and F21 to F26 of ARCHITECTURE.md, "Entropy data" and "Faults".
//
// FIFOs stand for devices (`--allow-test-sources`), so what a guest was given is compared with what was written, byte by byte.
// Leaves out: error numbers of devices (row 145), the CPU's (147) and the kernel's own (148, 149): test/daemon/entropy.
import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { BLOCK_BYTES, WINDOW_BYTES } from '../../daemon/entropy/health-tests.js';
import { type Fifo, makeFifo } from '../support/fifo.js';
import { goodBytes } from '../support/good-bytes.js';
import type { Daemon } from '../support/guest/daemon.js';
import { countFipsFailures } from '../support/guest/fips-140-2.js';
import { openFiles } from '../support/guest/proc-files.js';
import { delivered, heldMachine, ReadingGuest, stillHeld } from '../support/reading-guest.js';
import { eventually, startRngDaemon } from '../support/rng-daemon.js';
import { MemorySnapshot } from '../support/untouched.js';

const STARTUP_BYTES = BLOCK_BYTES + WINDOW_BYTES;
/** The test waits for a source that is out for a while: 1 s, 2 s, 4 s. */
const LOG_MS = 20_000;
const BAD_BYTES = 10 * BLOCK_BYTES;

function withSources(t: Test, sources: readonly string[], args: readonly string[] = []) {
  return startRngDaemon(t, {
    args: ['--allow-test-sources', ...sources.map((source) => `--source=${source}`), ...args],
  });
}

/** As many blocks of a stream as leave a source when these are written: all but the window behind them. */
function blocks(count: number, stream: number): { written: Buffer; given: Buffer } {
  const written = goodBytes(count * BLOCK_BYTES + WINDOW_BYTES, stream);
  return { written, given: written.subarray(0, count * BLOCK_BYTES) };
}

/** The device is replaced: what was not read of it is gone. */
function replace(fifo: Fifo): void {
  fifo.unplug();
  fifo.plug();
}

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
    reason: /adaptive proportion|FIPS 140-2/,
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
  // Longer than the first interval, at which it would be tried again.
  await setTimeout(1200);
  t.notOk(openFiles(daemon.pid).includes(fifo.path), 'it stays out');
  process.kill(daemon.pid, 'SIGHUP');
  await daemon.waitForLog(/SIGHUP: enabled again: file:.*\[reload\]/, LOG_MS);
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
  const next = blocks(3, 25);
  fifo.write(next.written);
  await guest.readTotal(good.given.length + next.given.length);
  await guest.readAll();
  t.ok(guest.bytes.equals(Buffer.concat([good.given, next.given])), 'byte by byte');
  await daemon.waitForLog(/delivers again: .*\[source_back\]/, LOG_MS);
});

for (const device of ['/dev/zero', '/dev/full']) {
  await t.test(`row 151: ${device} never becomes ready; the next source serves, or none`, async (t) => {
    const alone = await withSources(t, [`file:${device}`]);
    await alone.daemon.waitForLog(/repetition count: .*stays out until/, LOG_MS);
    const vm = heldMachine(t, alone.path);
    process.kill(alone.daemon.pid, 'SIGHUP');
    // Enabled, tested and refused once more.
    await alone.daemon.waitForLog(/\[source_failed\][^]*\[source_failed\]/, LOG_MS);
    stillHeld(t, vm, new MemorySnapshot(vm.ram));
    t.notMatch(alone.daemon.log, /source_ready|source_back/);
    t.match(await alone.daemon.stop(), { code: 0 });

    const { daemon, path } = await withSources(t, [`file:${device}`, 'getrandom']);
    const guest = new ReadingGuest(t, path);
    await guest.readTotal(100_000);
    t.notOk(guest.bytes.includes(Buffer.alloc(16)), 'no zeros');
    await daemon.waitForLog(/getrandom serves now in the place of file:/, LOG_MS);
  });
}

await t.test('row 151, F28: a source that is silent from the start is slow and never ready', async (t) => {
  const fifo = makeFifo(t);
  const { daemon, path } = await withSources(t, [`file:${fifo.path}`]);
  const vm = heldMachine(t, path);
  const snapshot = new MemorySnapshot(vm.ram);
  await daemon.waitForLog(/is slow: it has given nothing for 1 s \[source_slow\]/, LOG_MS);
  stillHeld(t, vm, snapshot);
  t.notMatch(daemon.log, /source_ready|source_failed/);
  t.match(await daemon.stop(), { code: 0 });
});

await t.test(
  'F21: sources vanish one by one: the next serves, then none, and the first that is back by itself',
  async (t) => {
    const [a, b] = [makeFifo(t), makeFifo(t)];
    const { daemon, path } = await withSources(t, [`file:${a.path}`, `file:${b.path}`]);
    const guest = new ReadingGuest(t, path);
    const given: Buffer[] = [];
    const serve = async (fifo: Fifo, count: number, stream: number) => {
      const good = blocks(count, stream);
      fifo.write(good.written);
      given.push(good.given);
      await guest.readTotal(Buffer.concat(given).length);
      await guest.readAll();
      t.ok(guest.bytes.equals(Buffer.concat(given)), `what stream ${stream} gave, and nothing else`);
    };
    const gone = async (fifo: Fifo) => {
      const from = daemon.log.length;
      fifo.unplug();
      await daemon.waitForLog(
        new RegExp(`reading file:${fifo.path} failed: it has come to its end; trying again`),
        LOG_MS,
        from,
      );
    };
    await serve(a, 4, 30);
    await gone(a);
    await serve(b, 3, 31);
    await daemon.waitForLog(new RegExp(`file:${b.path} serves now in the place of file:${a.path}`), LOG_MS);
    await gone(b);
    const snapshot = new MemorySnapshot(guest.vm.ram);
    stillHeld(t, guest.vm, snapshot);
    t.ok(guest.vm.frontend.answers(), 'the device answers its front-end');
    // Longer than the first look at both, which brings nothing.
    await setTimeout(1500);
    stillHeld(t, guest.vm, snapshot);
    a.plug();
    await serve(a, 2, 32);
    await daemon.waitForLog(new RegExp(`file:${a.path} serves now in the place of file:${b.path}`), LOG_MS);
    b.plug();
    await serve(b, 2, 33);
    // While both have bytes, the first serves: B's wait.
    const waits = blocks(20, 34);
    b.write(waits.written);
    await serve(a, 5, 35).catch(() => undefined);
    t.ok(daemon.isRunning);
  },
);

await t.test(
  'F23: the first source gives a byte a second: slow, the second serves, the first again',
  async (t) => {
    const fifo = makeFifo(t);
    const { daemon, path } = await withSources(t, [`file:${fifo.path}`, 'getrandom']);
    const good = goodBytes(10 * BLOCK_BYTES, 40);
    fifo.write(good.subarray(0, STARTUP_BYTES));
    await daemon.waitForLog(/\[source_ready\]/, LOG_MS);
    const guest = new ReadingGuest(t, path);
    await guest.readTotal(BLOCK_BYTES);
    t.ok(guest.bytes.subarray(0, BLOCK_BYTES).equals(good.subarray(0, BLOCK_BYTES)), 'the first serves');
    for (let second = 0; second < 3; second++) {
      fifo.write(good.subarray(STARTUP_BYTES + second, STARTUP_BYTES + second + 1));
      const endMs = performance.now() + 1000;
      for (let reads = 0; performance.now() < endMs; reads++) {
        const before = guest.count;
        await guest.readUntil(() => guest.count > before, `bytes in second ${second}, read ${reads}`);
      }
    }
    t.match(daemon.log, /getrandom serves now in the place of file:.*\[source_switch\]/);
    await daemon.waitForLog(/file:\S+ is slow: .*\[source_slow\]/, LOG_MS);
    const from = daemon.log.length;
    fifo.write(good.subarray(STARTUP_BYTES + 3));
    await guest.readUntil(
      () => /file:\S+ serves now in the place of getrandom/.test(daemon.log.slice(from)),
      'a switch back',
    );
    await daemon.waitForLog(/file:\S+ delivers again: .*\[source_back\]/, LOG_MS);
    await guest.readTotal(guest.count + 12 * BLOCK_BYTES);
    const second = good.subarray(BLOCK_BYTES, 2 * BLOCK_BYTES);
    t.ok(guest.bytes.includes(second.subarray(0, 64)), 'no byte of the slow time is lost');
  },
);

await t.test('F22: the first source jams, the second serves at once: nothing of the jam', async (t) => {
  const [a, b] = [makeFifo(t), makeFifo(t)];
  const { daemon, path } = await withSources(t, [`file:${a.path}`, `file:${b.path}`]);
  const guest = new ReadingGuest(t, path);
  const [ofA, ofB] = [blocks(4, 41), blocks(8, 42)];
  a.write(ofA.written);
  await guest.readTotal(ofA.given.length);
  b.write(ofB.written);
  a.write(Buffer.alloc(BAD_BYTES, 0x42));
  await guest.readTotal(ofA.given.length + ofB.given.length);
  await daemon.waitForLog(/repetition count: .*stays out/, LOG_MS);
  await guest.readAll();
  t.ok(guest.bytes.equals(Buffer.concat([ofA.given, ofB.given])), 'byte by byte');
});

await t.test('--mix: no byte is the source’s own; without the source there is none', async (t) => {
  const fifo = makeFifo(t);
  const { daemon, path } = await withSources(t, [`file:${fifo.path}`], ['--mix']);
  const vm = heldMachine(t, path);
  vm.close();
  const guest = new ReadingGuest(t, path);
  const good = blocks(20, 43);
  fifo.write(good.written);
  await guest.readTotal(good.given.length);
  await guest.readAll();
  t.equal(guest.count, good.given.length, 'as many as the source gave');
  const kernels = Buffer.from(guest.bytes.map((byte, i) => byte ^ (good.given[i] ?? 0)));
  // A block fails once in 1 200; three do not.
  t.ok(countFipsFailures(kernels) < 3, 'what was mixed in is random');
  t.ok(countFipsFailures(guest.bytes) < 3);
  t.notOk(guest.bytes.includes(kernels.subarray(0, 16)), 'and is not given itself');
  fifo.write(Buffer.alloc(BAD_BYTES));
  await daemon.waitForLog(/repetition count: .*stays out/, LOG_MS);
  stillHeld(t, guest.vm, new MemorySnapshot(guest.vm.ram));
});

/** States of a source in which the daemon is told to stop, with a guest that waits or does not. */
const STOPPED: Readonly<Record<string, (t: Test, fifo: Fifo, daemon: Daemon) => Promise<unknown>>> = {
  'silent from the start': () => Promise.resolve(),
  'slow in its start-up test': (_t, fifo, daemon) => {
    fifo.write(goodBytes(STARTUP_BYTES - 1, 50));
    return daemon.waitForLog(/\[source_slow\]/, LOG_MS);
  },
  'healthy, its queue full': async (t, fifo, daemon) => {
    fifo.write(goodBytes(60_000, 51));
    await daemon.waitForLog(/\[source_ready\]/, LOG_MS);
    t.pass('ready');
  },
  'gone, and tried again': (_t, fifo, daemon) => {
    fifo.unplug();
    return daemon.waitForLog(/has come to its end; trying again \[source_failed\]/, LOG_MS);
  },
  'out for good': (_t, fifo, daemon) => {
    fifo.write(Buffer.alloc(BAD_BYTES));
    return daemon.waitForLog(/stays out until .*\[source_failed\]/, LOG_MS);
  },
};

for (const [state, bring] of Object.entries(STOPPED)) {
  await t.test(`F24: SIGTERM while the source is ${state}: exit 0, no thread is left behind`, async (t) => {
    const fifo = makeFifo(t);
    const { daemon, path } = await withSources(t, [`file:${fifo.path}`]);
    const vm = heldMachine(t, path);
    await bring(t, fifo, daemon);
    t.match(await daemon.stop(), { code: 0, signal: undefined });
    t.notMatch(daemon.log, /stop_timeout/);
    t.ok(vm.frontend.isClosed());
  });
}

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
  const places = guests.flatMap(({ parts }) => parts.map((part) => [good.given.indexOf(part), part.length]));
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
