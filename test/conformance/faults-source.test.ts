// Sources that end, are silent, are slow or come back, as machines see them: requests are held, never served with anything else
// than the source's own bytes. Rows 143, 144, F21 to F24 of ARCHITECTURE.md, "Entropy data" and "Faults".
//
// FIFOs and files stand for devices (`--allow-test-sources`), so every byte that may reach a guest is known.
// Leaves out: sources that are biased or repeat (this version has no health tests yet).
import { spawnSync } from 'node:child_process';
import { closeSync, constants, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { eventually, startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { MemorySnapshot } from '../support/untouched.js';
import { DATA_BASE, VirtualMachine } from '../support/virtual-machine.js';

/** A FIFO that the test writes into; while it is open the device "is there", silent or not. */
function makeFifo(t: Test) {
  const path = join(temporaryFolder(t), 'device');
  if (spawnSync('mkfifo', [path]).status !== 0) throw new Error('mkfifo');
  let fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const unplug = (): void => {
    if (fd >= 0) closeSync(fd);
    fd = -1;
  };
  t.teardown(unplug);
  return {
    path,
    write: (bytes: Uint8Array) => void writeSync(fd, bytes),
    unplug,
    plug: () => (fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)),
  };
}

function withSource(t: Test, path: string, options: { devices?: number; kind?: string } = {}) {
  const args = ['--allow-test-sources', `--source=${options.kind ?? 'file'}:${path}`];
  return startRngDaemon(t, { devices: options.devices ?? 1, args });
}

/** Bytes that differ from each other and from 0. */
function bytesFrom(first: number, count: number): Buffer {
  return Buffer.from(Array.from({ length: count }, (_, i) => 1 + ((first + i) % 255)));
}

/** A machine with 4 requests of 64 bytes pending; nothing is completed, no byte is written. */
function held(t: Test, path: string): VirtualMachine {
  const vm = VirtualMachine.connect(path, { size: 4 });
  vm.offerAll(64);
  const snapshot = new MemorySnapshot(vm.ram);
  vm.frontend.setUp(vm.ram, vm.ring, { base: 0 });
  vm.frontend.kickRing();
  vm.settle();
  t.equal(vm.ring.take(), undefined, 'held');
  const { usedAddress, end } = vm.ring;
  // The used ring's event field and flags may be written, its index and elements may not.
  const usedRing = { address: usedAddress, length: Number(end - usedAddress) };
  t.equal(snapshot.firstChange([usedRing]), undefined, 'not one byte is delivered');
  t.equal(vm.ring.deviceUsedIndex, 0);
  return vm;
}

/** Waits for completions and gives all delivered bytes in order. */
function delivered(vm: VirtualMachine, count: number): Buffer {
  const used = vm.frontend.waitUsed(vm.ring, count);
  return Buffer.concat(used.map(({ id, length }) => vm.ram.view(DATA_BASE + BigInt(64 * id), length)));
}

await t.test(
  'F21, row 144: a source without bytes: held; served with its very bytes when they come',
  async (t) => {
    const fifo = makeFifo(t);
    const { path } = await withSource(t, fifo.path);
    const vm = held(t, path);
    fifo.write(bytesFrom(0, 256));
    t.same(delivered(vm, 4), bytesFrom(0, 256));
    vm.close();
  },
);

await t.test(
  'design §6 rule 1: a source with fewer bytes than were asked for: served in part, never with 0',
  async (t) => {
    const fifo = makeFifo(t);
    const { path } = await withSource(t, fifo.path);
    const vm = held(t, path);
    fifo.write(bytesFrom(0, 40));
    const first = delivered(vm, 1);
    t.same(first, bytesFrom(0, 40));
    vm.settle();
    t.equal(vm.ring.take(), undefined, 'the rest is held');
    fifo.write(bytesFrom(40, 24));
    t.same(delivered(vm, 1), bytesFrom(40, 24));
    vm.close();
  },
);

await t.test('F23: a source of one byte at a time is slow, not dead: no byte is lost', async (t) => {
  const fifo = makeFifo(t);
  const { path } = await withSource(t, fifo.path);
  const vm = held(t, path);
  let got = Buffer.alloc(0);
  for (let i = 0; i < 16; i++) {
    fifo.write(bytesFrom(i, 1));
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await eventually(() => {
    for (let used = vm.ring.take(); used !== undefined; used = vm.ring.take()) {
      if (used.length === 0) t.fail('completed with 0 bytes');
      got = Buffer.concat([got, vm.ram.view(DATA_BASE + BigInt(64 * used.id), used.length)]);
    }
    return got.length >= 16;
  });
  t.same(got, bytesFrom(0, 16));
  vm.close();
});

await t.test('F23: a slow source is shared: of two waiting machines both are served', async (t) => {
  const fifo = makeFifo(t);
  const { paths } = await withSource(t, fifo.path, { devices: 2 });
  const machines = paths.map((path) => held(t, path));
  const counts = machines.map(() => 0);
  await eventually(() => {
    fifo.write(bytesFrom(0, 64));
    machines.forEach((vm, i) => {
      for (let used = vm.ring.take(); used !== undefined; used = vm.ring.take()) {
        counts[i] = (counts[i] ?? 0) + 1;
        vm.ring.offer(used.id);
      }
      vm.ring.publish();
      vm.frontend.kickRing();
    });
    return counts.every((count) => count >= 5);
  });
  t.ok(
    counts.every((count) => count >= 5),
    counts.join(),
  );
  for (const vm of machines) vm.close();
});

await t.test('row 143: a source that ends has failed; requests are held until it is back', async (t) => {
  const fifo = makeFifo(t);
  const { daemon, path } = await withSource(t, fifo.path);
  const vm = held(t, path);
  fifo.write(bytesFrom(0, 64));
  t.same(delivered(vm, 1), bytesFrom(0, 64));
  fifo.unplug();
  await daemon.waitForLog(
    /reading file:.* failed: it has come to its end; trying again \[source_failed\]/,
    5000,
  );
  vm.settle();
  t.equal(vm.ring.take(), undefined, 'held');
  t.ok(vm.frontend.answers(), 'messages are answered meanwhile');
  fifo.plug();
  fifo.write(bytesFrom(64, 192));
  t.same(delivered(vm, 3), bytesFrom(64, 192));
  await daemon.waitForLog(/delivers again \[source_back\]/, 5000);
  vm.close();
});

await t.test(
  'F21: a file that has come to its end: its bytes are delivered, then requests are held',
  async (t) => {
    const device = join(temporaryFolder(t), 'device');
    writeFileSync(device, bytesFrom(0, 100));
    const { daemon, path } = await withSource(t, device);
    await daemon.waitForLog(/\[source_failed\]/, 5000);
    writeFileSync(device, '');
    const vm = VirtualMachine.connect(path, { size: 4 });
    vm.offerAll(64);
    vm.frontend.setUp(vm.ram, vm.ring, { base: 0 });
    t.same(delivered(vm, 2), bytesFrom(0, 100));
    vm.settle();
    t.equal(vm.ring.take(), undefined);
    vm.close();
    t.match(await daemon.stop(), { code: 0 });
  },
);

await t.test(
  'row 144, F21: the next source serves while the first has nothing; the first is preferred again',
  async (t) => {
    const fifo = makeFifo(t);
    const args = ['--allow-test-sources', `--source=file:${fifo.path}`, '--source=getrandom'];
    const { path } = await startRngDaemon(t, { args });
    const vm = VirtualMachine.start(path, { size: 4 });
    t.same(vm.request(), { id: 0, length: 64 }, 'served by the second');
    vm.close();
  },
);

await t.test(
  'F24: a source that is silent for ever (a FIFO without a writer): SIGTERM ends the daemon',
  async (t) => {
    const fifo = makeFifo(t);
    fifo.unplug();
    const { daemon, path } = await withSource(t, fifo.path, { kind: 'hwrng' });
    const vm = held(t, path);
    t.match(await daemon.stop(), { code: 0, signal: undefined });
    t.notMatch(daemon.log, /stop_timeout/);
    t.ok(vm.frontend.isClosed());
    vm.close();
  },
);

await t.test(
  'design §6 rule 6: no write after GET_VRING_BASE, though bytes come for a request that was held',
  async (t) => {
    const fifo = makeFifo(t);
    const { path } = await withSource(t, fifo.path);
    const vm = held(t, path);
    const first = vm.frontend.getVringBase();
    t.equal(first, 0, 'the first request that was not served');
    const snapshot = new MemorySnapshot(vm.ram);
    fifo.write(bytesFrom(0, 256));
    for (let i = 0; i < 10; i++) {
      vm.frontend.kickRing();
      vm.settle();
    }
    t.equal(snapshot.firstChange([]), undefined);
    vm.frontend.startRing(vm.ram, vm.ring, first);
    t.same(delivered(vm, 4), bytesFrom(0, 256), 'after the next start they are served');
    vm.close();
  },
);
