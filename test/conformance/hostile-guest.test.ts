// What a hostile guest tried in order to get more than its share, or to stop the others: a ring that is full while it is
// polled, a quota that is not charged, chains of any length, buffers anywhere. Each row carries the literal input of a finding
// (H6, H7, ...).
//
// Leaves out: what a VMM tries (hostile-vmm); how long others wait meanwhile, which no test on a shared machine can tell.
import { spawnSync } from 'node:child_process';
import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { maskOf, VirtioFeature } from '../../protocol/features.js';
import { BLOCK_BYTES, WINDOW_BYTES } from '../../daemon/entropy/health-tests.js';
import { FrontendRequest } from '../../protocol/request.js';
import { poll, POLLIN } from '../../shared-memory/libc.js';
import { type ChainCase, chained, runChainCase, writable } from '../support/chain-cases.js';
import { Desc } from '../support/driver-ring.js';
import { DEFAULT_FEATURES } from '../support/frontend.js';
import { goodBytes } from '../support/good-bytes.js';
import { eventually, startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { DATA_BASE, RING_BASE, VirtualMachine } from '../support/virtual-machine.js';

const MIB = 2 ** 20;
const FILL = 0xa5;
const WN = Desc.Write | Desc.Next;
const DEADLINE_MS = 5000;

/** Makes `count` requests available at once. */
function offer(vm: VirtualMachine, count: number): void {
  for (let i = 0; i < count; i++) vm.ring.offer(vm.ring.availIndex % vm.ring.size);
  vm.ring.publish();
}

/**
 * Fills a ring up whenever `least` requests are left, until `count` are complete, and a last time. Never waits, so that a ring
 * that is polled stays so.
 */
function keepFull(vm: VirtualMachine, count: number, least: number): void {
  const { ring, frontend } = vm;
  const endMs = performance.now() + DEADLINE_MS;
  let pending = 0;
  for (let completed = 0; completed < count || pending > least;) {
    if (pending <= least) {
      offer(vm, ring.size - pending);
      pending = ring.size;
      if (ring.wantsKick(false)) frontend.kickRing();
    }
    for (; ring.take() !== undefined; completed++) pending--;
    if (performance.now() > endMs) throw new Error(`got ${completed} of ${count} requests back`);
  }
  offer(vm, ring.size - pending);
}

await t.test('H6: with polling, a ring of 256 is full when its front-end goes: 20 times', async (t) => {
  const { daemon, paths } = await startRngDaemon(t, { devices: 2, args: ['--busy-poll-us=1000'] });
  const bystander = VirtualMachine.start(paths[1] ?? '');
  for (let round = 0; round < 20; round++) {
    const vm = VirtualMachine.start(paths[0] ?? '', { size: 256 });
    for (let i = 0; i < 256; i++)
      vm.ring.setDescriptor(i, { address: DATA_BASE, length: 64, flags: Desc.Write });
    vm.request();
    // Empty and polled, then full at once: more than one pass is found while the daemon looks, and before it sees the end.
    keepFull(vm, 1024, round % 4 === 3 ? 64 : 0);
    vm.frontend.hangUp();
    t.same(bystander.request(), { id: 0, length: 64 }, 'the other device is served');
    vm.close();
  }
  t.ok(daemon.isRunning);
  bystander.close();
});

await t.test(
  'H7: a limit of 1,000 bytes, and a chain that faults behind 999 good bytes: 20 times',
  async (t) => {
    const { path } = await startRngDaemon(t, { args: ['--max-bytes=1000', '--period=600000'] });
    const bad = 0x1000_0000n;
    const vm = VirtualMachine.start(path, {
      regions: [
        { guestPhysAddr: RING_BASE, bytes: MIB },
        { guestPhysAddr: bad, bytes: 4096, sealed: false },
      ],
    });
    vm.ram.truncate(1, 0);
    vm.describe(chained([writable(DATA_BASE, 999), writable(bad, 1)]));
    const buffer = vm.ram.view(DATA_BASE, 999);
    const given: number[] = [];
    for (let i = 0; i < 20; i++) {
      buffer.fill(0);
      if (i === 0 || vm.ring.take() !== undefined) vm.ring.offer(0);
      vm.ring.publish();
      // Starts the ring again, which the fault has stopped, and looks at it.
      vm.frontend.expectOk({ request: FrontendRequest.SetVringKick, index: 0, noFd: false }, [
        vm.frontend.kick,
      ]);
      vm.settle();
      given.push(buffer.filter((byte) => byte !== 0).length);
    }
    const total = given.reduce((sum, bytes) => sum + bytes, 0);
    t.ok((given[0] ?? 0) > 900, 'the good part comes before the fault');
    t.ok(total <= 1000, `${total} bytes: ${given.join(' ')}`);
    vm.close();
  },
);

await t.test('H8: a polled ring stops and starts again: the driver is asked for kicks', async (t) => {
  const { path } = await startRngDaemon(t, { args: ['--busy-poll-us=1000000'] });
  const vm = VirtualMachine.start(path);
  for (let i = 0; i < 3; i++) {
    vm.settle();
    vm.request();
    t.ok(await eventually(() => !vm.ring.wantsKick(false)), 'no kicks while it is polled');
    const base = vm.frontend.getVringBase();
    vm.frontend.startRing(vm.ram, vm.ring, base);
    vm.settle();
    t.equal(vm.ring.used16[0], 0, 'used.flags');
    vm.ring.request(0, DATA_BASE, 64);
    if (vm.ring.wantsKick(false)) vm.frontend.kickRing();
    t.same(vm.frontend.waitUsed(vm.ring, 1), [{ id: 0, length: 64 }]);
  }
  vm.close();
});

const PART_BYTES = 16;
const TABLE = DATA_BASE + 0x20000n;

/** A chain of `count` buffers; with `direct` at most that, the descriptor of this number points to a table of the others. */
function chainOf(title: string, count: number, direct: number, isServed: boolean): ChainCase {
  const parts = Array.from({ length: count }, (_, i) =>
    writable(DATA_BASE + 0x40000n + BigInt(i * PART_BYTES), PART_BYTES),
  );
  const used = isServed ? parts.length * PART_BYTES : 0;
  if (direct > count) return { title, chain: chained(parts), used, writable: parts };
  const pointer = { address: TABLE, length: (count - direct + 1) * 16, flags: Desc.Indirect };
  const chain = chained([...parts.slice(0, direct - 1), pointer]);
  const table = { address: TABLE, entries: chained(parts.slice(direct - 1)) };
  return { title, chain, table, used, writable: parts };
}

await t.test('H9: a chain as long as is served, and one descriptor more', async (t) => {
  const { path } = await startRngDaemon(t);
  for (const { memory, sealed, longest } of [
    { memory: 'sealed', sealed: true, longest: 1024 },
    { memory: 'guarded', sealed: false, longest: 128 },
  ]) {
    const vm = VirtualMachine.start(path, {
      size: 2048,
      sealed,
      features: DEFAULT_FEATURES | maskOf(VirtioFeature.INDIRECT_DESC),
    });
    for (const [how, direct] of [
      ['direct', longest + 2],
      ['in a table', 1],
      ['half of it in a table', longest / 2],
    ] as const) {
      for (const count of [longest, longest + 1]) {
        const given = chainOf(`${memory}, ${count} descriptors, ${how}`, count, direct, count === longest);
        await t.test(given.title, (t) => {
          runChainCase(t, vm, given);
          t.end();
        });
      }
    }
    vm.close();
  }
});

await t.test(
  'H13: 32,767 parts and a table of 1,024 more: completed with 0, nothing is written',
  async (t) => {
    const { path } = await startRngDaemon(t);
    const size = 32768;
    const data = 0x200000n;
    const vm = VirtualMachine.start(path, {
      size,
      bytes: 4 * MIB,
      features: DEFAULT_FEATURES | maskOf(VirtioFeature.INDIRECT_DESC),
    });
    const buffer = vm.ram.view(data, size + 1024).fill(FILL);
    for (let i = 0; i < size - 1; i++)
      vm.ring.setDescriptor(i, { address: data + BigInt(i), length: 1, flags: WN, next: i + 1 });
    const table = data + 0x100000n;
    const entries = Array.from({ length: 1024 }, (_, i) => writable(data + BigInt(size + i), 1));
    vm.ring.setIndirectTable(table, chained(entries));
    vm.ring.setDescriptor(size - 1, { address: table, length: 1024 * 16, flags: Desc.Indirect });
    vm.ring.offer(0);
    vm.ring.publish();
    vm.frontend.kickRing();
    t.same(vm.frontend.waitUsed(vm.ring, 1), [{ id: 0, length: 0 }]);
    t.ok(buffer.every((byte) => byte === FILL));
    t.same(vm.request(64, data), { id: 0, length: 64 }, 'the next one is served');
    vm.close();
  },
);

await t.test('H11: a hwrng that gives one byte at a time serves, with its own bytes in order', async (t) => {
  const fifo = join(temporaryFolder(t), 'hwrng');
  if (spawnSync('mkfifo', [fifo]).status !== 0) throw new Error('mkfifo');
  const fd = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  t.teardown(() => closeSync(fd));
  const { path } = await startRngDaemon(t, { args: [`--source=hwrng:${fifo}`] });
  const vm = VirtualMachine.start(path);
  const buffer = vm.ram.view(DATA_BASE, 64);
  const got: number[] = [];
  const take = (): void => {
    const used = vm.ring.take();
    if (used === undefined) return;
    got.push(...buffer.subarray(0, used.length));
    vm.ring.request(0, DATA_BASE, 64);
    vm.frontend.kickRing();
  };
  vm.ring.request(0, DATA_BASE, 64);
  vm.frontend.kickRing();
  // All but the last byte of what a start-up test takes at once, then one by one.
  const wanted = goodBytes(BLOCK_BYTES + WINDOW_BYTES + 64);
  const atOnce = BLOCK_BYTES + WINDOW_BYTES - 1;
  writeSync(fd, wanted, 0, atOnce);
  for (let at = atOnce; at < wanted.length; at++) {
    if (!(await eventually(() => poll(fd, POLLIN, 0) === 0))) t.fail(`byte ${at - 1} is not read`);
    writeSync(fd, wanted, at, 1);
    take();
  }
  t.ok(
    await eventually(() => {
      take();
      return got.length === BLOCK_BYTES;
    }),
    `${got.length} of ${BLOCK_BYTES} bytes`,
  );
  t.ok(Buffer.from(got).equals(wanted.subarray(0, BLOCK_BYTES)));
  vm.close();
});

await t.test('H14: buffers at 64 places of 1 MiB each, twice around: all are filled', async (t) => {
  const { path } = await startRngDaemon(t);
  const vm = VirtualMachine.start(path, { bytes: 66 * MIB });
  for (let i = 0; i < 2 * 64; i++) {
    const address = BigInt(((i % 64) + 1) * MIB);
    const around = vm.ram.view(address - 64n, 3 * 64).fill(FILL);
    t.same(vm.request(64, address), { id: 0, length: 64 });
    const margin = Buffer.alloc(64, FILL);
    t.equal(
      around.subarray(64, 128).indexOf(Buffer.alloc(8, FILL)),
      -1,
      `filled at 0x${address.toString(16)}`,
    );
    t.ok(around.subarray(0, 64).equals(margin) && around.subarray(128).equals(margin), 'and nothing else');
  }
  vm.close();
});
