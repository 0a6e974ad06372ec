// Sources that end, are silent, are slow or come back, as machines see them: requests are held, never served with anything else
// than the source's own bytes. Rows 143, 144, F21 to F24 of ARCHITECTURE.md, "Entropy data" and "Faults".
//
// FIFOs and files stand for devices (`--allow-test-sources`), so every byte that may reach a guest is known: a block of 2 560
// leaves once the 512 bytes behind it have come too. Leaves out: bad bytes (entropy-data.test.ts).
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { BLOCK_BYTES, WINDOW_BYTES } from '../../daemon/entropy/health-tests.js';
import { makeFifo } from '../support/fifo.js';
import { goodBytes } from '../support/good-bytes.js';
import { delivered, heldMachine, ReadingGuest, stillHeld } from '../support/reading-guest.js';
import { eventually, startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { MemorySnapshot } from '../support/untouched.js';

/** What must have come before the first block leaves. */
const STARTUP_BYTES = BLOCK_BYTES + WINDOW_BYTES;
const LOG_MS = 10_000;

function withSource(t: Test, path: string, options: { devices?: number; kind?: string } = {}) {
  const args = ['--allow-test-sources', `--source=${options.kind ?? 'file'}:${path}`];
  return startRngDaemon(t, { devices: options.devices ?? 1, args });
}

await t.test(
  'F21, row 144: a source without bytes, or too few to be tested: held; then served with its very bytes',
  async (t) => {
    const fifo = makeFifo(t);
    const { daemon, path } = await withSource(t, fifo.path);
    const vm = heldMachine(t, path);
    const snapshot = new MemorySnapshot(vm.ram);
    const good = goodBytes(STARTUP_BYTES, 1);
    fifo.write(good.subarray(0, STARTUP_BYTES - 1));
    // The reader has looked at them, or it would not be slow but starting.
    await daemon.waitForLog(/is slow: it has given nothing for 1 s \[source_slow\]/, LOG_MS);
    stillHeld(t, vm, snapshot);
    fifo.write(good.subarray(STARTUP_BYTES - 1));
    t.ok(delivered(vm, 4).equals(good.subarray(0, 256)));
  },
);

await t.test(
  'design §6 rule 1: a source with fewer bytes than were asked for: served in part, never with 0',
  async (t) => {
    const fifo = makeFifo(t);
    const { path } = await withSource(t, fifo.path);
    const vm = heldMachine(t, path, 1000);
    const good = goodBytes(STARTUP_BYTES + BLOCK_BYTES, 2);
    fifo.write(good.subarray(0, STARTUP_BYTES));
    // Two whole requests, and what is left of the block.
    const first = delivered(vm, 3, 1000);
    t.equal(first.length, BLOCK_BYTES);
    t.ok(first.equals(good.subarray(0, BLOCK_BYTES)));
    stillHeld(t, vm, new MemorySnapshot(vm.ram));
    fifo.write(good.subarray(STARTUP_BYTES));
    t.ok(delivered(vm, 1, 1000).equals(good.subarray(BLOCK_BYTES, BLOCK_BYTES + 1000)));
  },
);

await t.test('F23: a source of one byte at a time is slow, not dead: no byte is lost', async (t) => {
  const fifo = makeFifo(t);
  const { daemon, path } = await withSource(t, fifo.path);
  const guest = new ReadingGuest(t, path);
  const good = goodBytes(STARTUP_BYTES + BLOCK_BYTES, 3);
  const single = 25;
  const writeOneByOne = async (until: number) => {
    fifo.write(good.subarray(written, until - single));
    // Longer than the reader ever pauses: each byte comes to it alone.
    for (let at = until - single; at < until; at++) {
      fifo.write(good.subarray(at, at + 1));
      await setTimeout(60);
      guest.take();
    }
    written = until;
  };
  let written = 0;
  await writeOneByOne(STARTUP_BYTES);
  await guest.readTotal(BLOCK_BYTES);
  t.ok(guest.bytes.equals(good.subarray(0, BLOCK_BYTES)));
  await writeOneByOne(good.length);
  await guest.readTotal(2 * BLOCK_BYTES);
  t.ok(guest.bytes.equals(good.subarray(0, 2 * BLOCK_BYTES)));
  await daemon.waitForLog(/is slow: it has given nothing for 1 s \[source_slow\]/, LOG_MS);
  t.notMatch(daemon.log, /source_failed/);
});

await t.test('F23: a slow source is shared: of three waiting machines each has as much', async (t) => {
  const fifo = makeFifo(t);
  const { paths } = await withSource(t, fifo.path, { devices: 3 });
  // Each asks for four blocks at any time, so whoever is asked first could take every block that comes.
  const guests = paths.map((path) => new ReadingGuest(t, path, { length: BLOCK_BYTES }));
  const all = () => guests.reduce((sum, guest) => sum + guest.count, 0);
  const rounds = 30;
  const good = goodBytes(STARTUP_BYTES + rounds * BLOCK_BYTES, 4);
  fifo.write(good.subarray(0, WINDOW_BYTES));
  for (let round = 1; round <= rounds; round++) {
    const from = WINDOW_BYTES + (round - 1) * BLOCK_BYTES;
    fifo.write(good.subarray(from, from + BLOCK_BYTES));
    const read = () => {
      for (const guest of guests) guest.take();
      return all() === round * BLOCK_BYTES;
    };
    t.ok(await eventually(read), `block ${round} was given to somebody`);
  }
  t.same(
    guests.map((guest) => guest.count / BLOCK_BYTES),
    [rounds / 3, rounds / 3, rounds / 3],
    'blocks for each',
  );
});

await t.test('row 143: a source that ends has failed; requests are held until it is back', async (t) => {
  const fifo = makeFifo(t);
  const { daemon, path } = await withSource(t, fifo.path);
  const vm = heldMachine(t, path, BLOCK_BYTES);
  const good = goodBytes(STARTUP_BYTES, 5);
  fifo.write(good);
  t.ok(delivered(vm, 1, BLOCK_BYTES).equals(good.subarray(0, BLOCK_BYTES)));
  fifo.unplug();
  await daemon.waitForLog(
    /reading file:.* failed: it has come to its end; trying again \[source_failed\]/,
    LOG_MS,
  );
  const snapshot = new MemorySnapshot(vm.ram);
  stillHeld(t, vm, snapshot);
  t.ok(vm.frontend.answers(), 'messages are answered meanwhile');
  fifo.plug();
  const next = goodBytes(BLOCK_BYTES + STARTUP_BYTES, 6);
  fifo.write(next.subarray(0, STARTUP_BYTES - 1));
  await daemon.waitForLog(/\[source_slow\]/, LOG_MS);
  stillHeld(t, vm, snapshot);
  fifo.write(next.subarray(STARTUP_BYTES - 1));
  // The window that waited for its block when the source ended is not used: a new start-up test is taken.
  t.ok(delivered(vm, 2, BLOCK_BYTES).equals(next.subarray(0, 2 * BLOCK_BYTES)));
  await daemon.waitForLog(/delivers again: it has passed its start-up test \[source_back\]/, LOG_MS);
});

await t.test(
  'F21: a file that has come to its end: its bytes are delivered once; the same file again is a replay',
  async (t) => {
    const device = join(temporaryFolder(t), 'device');
    const good = goodBytes(3 * BLOCK_BYTES + WINDOW_BYTES, 7);
    writeFileSync(device, good);
    const { daemon, path } = await withSource(t, device);
    await daemon.waitForLog(/failed: it has come to its end.*\[source_failed\]/, LOG_MS);
    const guest = new ReadingGuest(t, path);
    await guest.readTotal(3 * BLOCK_BYTES);
    await daemon.waitForLog(
      /failed a health test: repeated block: .*stays out until an operator.*\[source_failed\]/,
      LOG_MS,
    );
    await guest.readAll();
    t.ok(guest.bytes.equals(good.subarray(0, 3 * BLOCK_BYTES)), 'not a byte twice');
    t.match(await daemon.stop(), { code: 0 });
  },
);

await t.test(
  'row 144, F21: the next source serves while the first has nothing; the first is preferred again',
  async (t) => {
    const fifo = makeFifo(t);
    const args = ['--allow-test-sources', `--source=file:${fifo.path}`, '--source=getrandom'];
    const { daemon, path } = await startRngDaemon(t, { args });
    const guest = new ReadingGuest(t, path);
    await guest.readTotal(10_000);
    await daemon.waitForLog(/getrandom serves now in the place of file:.*\[source_switch\]/, LOG_MS);
    const good = goodBytes(STARTUP_BYTES, 8);
    fifo.write(good);
    await guest.readUntil(() => /file:\S+ serves now in the place of getrandom/.test(daemon.log), 'a switch');
    // What waited in the pool of the second's bytes is used up first.
    await guest.readTotal(guest.count + 20_000);
    t.ok(guest.bytes.includes(good.subarray(0, BLOCK_BYTES)), 'the whole block, in order');
    t.notOk(guest.bytes.includes(good.subarray(BLOCK_BYTES, BLOCK_BYTES + 64)), 'and nothing that waits');
  },
);

await t.test(
  'F24: a source that is silent for ever (a FIFO without a writer): SIGTERM ends the daemon',
  async (t) => {
    const fifo = makeFifo(t);
    fifo.unplug();
    const { daemon, path } = await withSource(t, fifo.path, { kind: 'hwrng' });
    const vm = heldMachine(t, path);
    t.match(await daemon.stop(), { code: 0, signal: undefined });
    t.notMatch(daemon.log, /stop_timeout/);
    t.ok(vm.frontend.isClosed());
  },
);

await t.test(
  'design §6 rule 6: no write after GET_VRING_BASE, though bytes come for a request that was held',
  async (t) => {
    const fifo = makeFifo(t);
    const { daemon, path } = await withSource(t, fifo.path);
    const vm = heldMachine(t, path);
    const first = vm.frontend.getVringBase();
    t.equal(first, 0, 'the first request that was not served');
    const snapshot = new MemorySnapshot(vm.ram);
    const good = goodBytes(STARTUP_BYTES, 9);
    fifo.write(good);
    await daemon.waitForLog(/\[source_ready\]/, LOG_MS);
    for (let i = 0; i < 10; i++) {
      vm.frontend.kickRing();
      vm.settle();
    }
    t.equal(snapshot.firstChange([]), undefined);
    vm.frontend.startRing(vm.ram, vm.ring, first);
    t.ok(delivered(vm, 4).equals(good.subarray(0, 256)), 'after the next start they are served');
  },
);
