// What is seen to go wrong in vhost-device-rng (design.md §11), each shown to be right here: one fault of one guest or VMM ends
// no more than itself, a quota is a quota, and nothing waits for an exhausted one.
//
// Leaves out: one device that asks for 3 MiB buffers (split-ring-service).
import { existsSync } from 'node:fs';
import t, { type Test } from 'tap';
import { FrontendRequest } from '../../protocol/request.js';
import { encodeRequest } from '../../protocol/reply.js';
import { chained, readable, writable } from '../support/chain-cases.js';
import type { DescriptorPlan } from '../support/driver-ring.js';
import { DEFAULT_FEATURES, Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';
import { eventually, memfdMappings, openFdCount, startRngDaemon } from '../support/rng-daemon.js';
import { MemorySnapshot } from '../support/untouched.js';
import { DATA_BASE, VirtualMachine } from '../support/virtual-machine.js';

/** Chains that end a queue of vhost-device-rng for good, and what is to be given for them. */
const CHAINS: Readonly<Record<string, { chain: readonly DescriptorPlan[]; used: number }>> = {
  'a chain of two descriptors': {
    chain: chained([writable(DATA_BASE, 32), writable(DATA_BASE + 64n, 32)]),
    used: 64,
  },
  'a readable descriptor': { chain: [readable(DATA_BASE, 64)], used: 0 },
  'a bad address': { chain: [writable(0xdead_0000_0000n, 64)], used: 0 },
};

for (const [what, { chain, used }] of Object.entries(CHAINS)) {
  await t.test(`${what} leaves the queue serving`, async (t) => {
    const { path } = await startRngDaemon(t);
    const vm = VirtualMachine.start(path);
    for (let i = 0; i < 3; i++) {
      vm.describe(chain);
      vm.ring.offer(0);
      vm.ring.publish();
      vm.frontend.kickRing();
      t.same(vm.frontend.waitUsed(vm.ring, 1), [{ id: 0, length: used }]);
      t.same(vm.request(64, DATA_BASE, 9), { id: 9, length: 64 });
    }
    vm.close();
  });
}

/** Messages that end the process of vhost-device-rng. */
const MESSAGES: Readonly<Record<string, (frontend: Frontend) => void>> = {
  'an unknown request': (frontend) => {
    frontend.sendBytes(encodeRequest(0x7777, new Uint8Array(0), { needReply: false }));
  },
  'a bad ring index': (frontend) =>
    frontend.send({ request: FrontendRequest.SetVringNum, index: 255, num: 16 }),
  'a second SET_OWNER': (frontend) => {
    frontend.negotiate();
    frontend.send({ request: FrontendRequest.SetOwner });
  },
};

for (const [what, send] of Object.entries(MESSAGES)) {
  await t.test(
    `${what} ends its own connection at most: the other device's machine is served all along`,
    async (t) => {
      const { daemon, paths } = await startRngDaemon(t, { devices: 2 });
      const vm = VirtualMachine.start(paths[1] ?? '');
      for (let i = 0; i < 5; i++) {
        const bad = Frontend.connect(paths[0] ?? '');
        send(bad);
        t.ok(bad.isClosed());
        bad.close();
        t.same(vm.request(), { id: 0, length: 64 });
      }
      const next = VirtualMachine.start(paths[0] ?? '');
      t.same(next.request(), { id: 0, length: 64 }, 'and the device itself takes the next front-end');
      t.ok(daemon.isRunning);
      for (const one of [vm, next]) one.close();
    },
  );
}

await t.test('500 sessions, each with its own eventfds and memory: none is left open', async (t) => {
  const { daemon, path } = await startRngDaemon(t);
  const session = (): void => {
    const vm = VirtualMachine.start(path);
    for (const request of [FrontendRequest.SetVringCall, FrontendRequest.SetVringErr] as const) {
      vm.frontend.expectOk({ request, index: 0, noFd: false }, [vm.frontend.call]);
    }
    vm.request();
    vm.close();
  };
  const first = VirtualMachine.start(path);
  first.settle();
  const fds = openFdCount(daemon.pid);
  first.close();
  for (let i = 0; i < 500; i++) session();
  const vm = VirtualMachine.start(path);
  vm.settle();
  // What is let go is closed by another thread, a moment later.
  t.ok(
    await eventually(() => openFdCount(daemon.pid) === fds),
    `${openFdCount(daemon.pid)} of ${fds} descriptors`,
  );
  t.ok(await eventually(() => memfdMappings(daemon.pid) === 1), 'one mapping');
  vm.close();
});

/** A device whose quota is spent for the next ten minutes, and a machine that waits at it. */
async function exhausted(t: Test) {
  const started = await startRngDaemon(t, { args: ['--max-bytes=64', '--period=600000'] });
  const vm = VirtualMachine.start(started.path);
  t.same(vm.request(), { id: 0, length: 64 });
  vm.ring.request(1, DATA_BASE, 64);
  vm.frontend.kickRing();
  vm.settle();
  t.equal(vm.ring.take(), undefined, 'held');
  return { ...started, vm };
}

await t.test('the quota survives a new connection, a new guest and RESET_DEVICE', async (t) => {
  const { path, vm } = await exhausted(t);
  vm.close();
  for (let i = 0; i < 5; i++) {
    const again = VirtualMachine.start(path);
    again.offerAll(64);
    again.frontend.kickRing();
    again.settle();
    t.equal(again.ring.take(), undefined, 'held on the next connection');
    again.frontend.expectOk({ request: FrontendRequest.ResetDevice });
    again.frontend.expectOk({ request: FrontendRequest.SetFeatures, features: DEFAULT_FEATURES });
    again.frontend.startRing(again.ram, again.ring, 0);
    again.settle();
    t.equal(again.ring.take(), undefined, 'and after a reset');
    again.close();
  }
});

await t.test('reconnecting does not raise a rate: 20 connections within one quota', async (t) => {
  const maxBytes = 1000;
  const { path } = await startRngDaemon(t, { args: [`--max-bytes=${maxBytes}`, '--period=600000'] });
  let total = 0;
  for (let i = 0; i < 20; i++) {
    const vm = VirtualMachine.start(path);
    vm.offerAll(64);
    vm.frontend.kickRing();
    vm.settle();
    for (let used = vm.ring.take(); used !== undefined; used = vm.ring.take()) total += used.length;
    vm.close();
  }
  t.equal(total, maxBytes, 'all of the quota, and no more');
});

await t.test('with the quota spent every message is answered, and memory can be changed', async (t) => {
  const { vm } = await exhausted(t);
  const { frontend } = vm;
  t.ok(frontend.getU64(FrontendRequest.GetFeatures) > 0n);
  t.ok(frontend.getU64(FrontendRequest.GetProtocolFeatures) > 0n);
  frontend.setMemTable(vm.ram);
  const larger = new GuestRam([
    { guestPhysAddr: 0x10000n, bytes: 1 << 20 },
    { guestPhysAddr: 0x1000_0000n, bytes: 1 << 20 },
  ]);
  frontend.setMemTable(larger);
  t.equal(frontend.getVringBase(), 0, 'in the new memory nothing was served');
  larger.close();
  vm.close();
});

await t.test('no write and no signal after GET_VRING_BASE, nor after the front-end has gone', async (t) => {
  const { path } = await startRngDaemon(t, { args: ['--max-bytes=64', '--period=300'] });
  const vm = VirtualMachine.start(path);
  vm.offerAll(64);
  vm.frontend.kickRing();
  vm.frontend.waitUsed(vm.ring, 2);
  const base = vm.frontend.getVringBase();
  const served = vm.ring.deviceUsedIndex;
  t.equal(base, served, 'the first request that was not served');
  vm.frontend.waitCall(0);
  const snapshot = new MemorySnapshot(vm.ram);
  // Two periods: a timer that was left armed would have served again. Another guest's pace tells the time.
  await twoPeriods();
  t.equal(snapshot.firstChange([]), undefined, 'stopped');
  t.equal(vm.frontend.waitCall(0), 0);
  vm.frontend.startRing(vm.ram, vm.ring, base);
  vm.frontend.waitUsed(vm.ring, 1);
  vm.settle();
  vm.frontend.hangUp();
  const next = Frontend.connect(path);
  t.ok(next.answers(), 'the daemon has seen that it has gone');
  const after = new MemorySnapshot(vm.ram);
  await twoPeriods();
  t.equal(after.firstChange([]), undefined, 'gone');
  next.close();
  vm.close();
});

function twoPeriods(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 700));
}

await t.test('buffers that were placed before the ring starts are served without a kick', async (t) => {
  const { path } = await startRngDaemon(t);
  const vm = VirtualMachine.connect(path);
  vm.offerAll(64);
  vm.frontend.setUp(vm.ram, vm.ring, { base: 0 });
  t.equal(vm.frontend.waitUsed(vm.ring, vm.ring.size).length, vm.ring.size);
  vm.close();
});

await t.test('SIGTERM removes the socket file', async (t) => {
  const { daemon, path } = await startRngDaemon(t);
  const vm = VirtualMachine.start(path);
  t.match(await daemon.stop(), { code: 0 });
  t.notOk(existsSync(path));
  vm.close();
});
