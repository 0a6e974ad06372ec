// A new process goes on with the guests of the old one, by what the service manager has kept: after SIGTERM, after SIGKILL at any
// moment, with requests held, with messages half sent. The VMM sees no disconnect and no message, at most a pause. Rows F7, F8, F43.
//
// Leaves out: the real systemd (test/systemd), a real guest (end-to-end).
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import * as v from 'valibot';
import { type DeviceStatus, DeviceShape } from '../../daemon/control/shapes.js';
import { encodeHeader } from '../../protocol/header.js';
import { FrontendRequest } from '../../protocol/request.js';
import { closeFd } from '../../shared-memory/fd.js';
import { ask } from '../support/control-client.js';
import { GuestRam } from '../support/guest-ram.js';
import { ReadingGuest } from '../support/reading-guest.js';
import { temporaryFolder } from '../support/rng-daemon.js';
import { ServiceManager } from '../support/service-manager.js';
import { DATA_BASE, VirtualMachine } from '../support/virtual-machine.js';

async function startKept(t: Test, args: readonly string[] = [], devices = 1) {
  const folder = temporaryFolder(t);
  const manager = new ServiceManager(t);
  const paths = Array.from({ length: devices }, (_, i) => join(folder, `rng${i}.sock`));
  const control = join(folder, 'control.sock');
  const all = [...paths.map((path) => `--socket-path=${path}`), `--control-socket=${control}`, ...args];
  await manager.start(all);
  const restart = async (signal: NodeJS.Signals, more: readonly string[] = all): Promise<void> => {
    await manager.kill(signal);
    await manager.start(more);
  };
  const device = async (name = 'rng0'): Promise<DeviceStatus> =>
    v.parse(DeviceShape, (await ask(control, `GET /v1/devices/${name}`)).json);
  return { manager, paths, path: paths[0] ?? '', all, restart, device, control };
}

for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
  await t.test(`${signal}: the guest reads on in the next process, and in the one after`, async (t) => {
    const { path, restart, device, manager } = await startKept(t);
    const vm = VirtualMachine.start(path);
    for (let i = 0; i < 100; i++) t.equal(vm.request(64).length, 64);
    for (let restarts = 1; restarts <= 3; restarts++) {
      await restart(signal);
      for (let i = 0; i < 10; i++) t.equal(vm.request(64).length, 64, `after restart ${restarts}`);
      t.match(await device(), {
        requests: 100 + 10 * restarts,
        connections: 1,
        frontEnds: [{ pid: process.pid, ring: { state: 'running' }, memory: { sealed: true } }],
      });
    }
    t.match(manager.log, /a front-end goes on in this process \(pid \d+, uid \d+\) \[taken_over\]/);
    vm.settle();
    vm.close();
    await manager.until(
      () => manager.names.length === 2,
      'nothing kept of a guest that has gone but the ledgers',
    );
    t.same(manager.names, ['vhost-rngd.ledger.*', 'vhost-rngd.ledger.rng0']);
  });

  await t.test(`${signal}: a request that waits is served by the next process, without a kick`, async (t) => {
    const { path, restart, control } = await startKept(t);
    const vm = VirtualMachine.start(path);
    t.equal(vm.request(64).length, 64);
    await ask(control, 'PATCH /v1/devices/rng0', { paused: true });
    vm.ring.request(0, DATA_BASE, 64);
    vm.frontend.kickRing();
    vm.settle();
    // Paused by an operator, which a process without a state file forgets.
    await restart(signal);
    t.equal(vm.frontend.waitUsed(vm.ring, 1)[0]?.length, 64);
    vm.close();
  });
}

await t.test('a request that is made while no process is there is served by the next', async (t) => {
  const { path, manager, all } = await startKept(t);
  const vm = VirtualMachine.start(path);
  t.equal(vm.request(64).length, 64);
  await manager.kill('SIGKILL');
  vm.ring.request(1, DATA_BASE, 64);
  vm.frontend.kickRing();
  vm.frontend.send({ request: FrontendRequest.GetFeatures });
  await manager.start(all);
  t.equal(vm.frontend.waitUsed(vm.ring, 1)[0]?.length, 64);
  t.ok(vm.frontend.receive() !== undefined, 'a message too is answered');
  vm.close();
});

await t.test('limits go on: no restart gives a new quota, also of the total', async (t) => {
  for (const args of [
    ['--max-bytes=1000', '--period=3600000'],
    ['--total-max-bytes=1000', '--total-period=3600000'],
  ]) {
    const { path, restart, device } = await startKept(t, args);
    const vm = VirtualMachine.start(path);
    t.equal(vm.request(800).length, 800);
    for (const signal of ['SIGKILL', 'SIGTERM', 'SIGKILL'] as const) await restart(signal);
    vm.ring.request(0, DATA_BASE, 800);
    vm.frontend.kickRing();
    t.equal(vm.frontend.waitUsed(vm.ring, 1)[0]?.length, 200, args.join(' '));
    t.equal((await device()).bytes, 1000);
    await restart('SIGKILL');
    vm.ring.request(0, DATA_BASE, 64);
    vm.frontend.kickRing();
    vm.settle();
    t.equal(vm.ring.take(), undefined, 'held');
    vm.close();
  }
});

await t.test('many guests, some of one socket, with memory of one file: each goes on', async (t) => {
  const { paths, restart, device } = await startKept(t, ['--connections=3'], 3);
  const machines = paths.flatMap((path) => [1, 2, 3].map(() => VirtualMachine.start(path)));
  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    for (const machine of machines) t.equal(machine.request(64).length, 64);
    await restart(signal);
    for (const machine of machines) t.equal(machine.request(64).length, 64);
  }
  t.equal((await device('rng2')).frontEnds.length, 3);
  for (const machine of machines) machine.close();
});

await t.test('a VMM that has gone meanwhile is let go; its device listens', async (t) => {
  const { path, manager, all, device } = await startKept(t);
  const vm = VirtualMachine.start(path);
  vm.request(64);
  await manager.kill('SIGKILL');
  vm.close();
  await manager.start(all);
  const again = VirtualMachine.start(path);
  t.equal(again.request(64).length, 64);
  t.match(await device(), { connections: 2 });
  again.close();
});

await t.test('a device that is no longer served: its guest is disconnected, the others go on', async (t) => {
  const { paths, all, restart, manager } = await startKept(t, [], 2);
  const [first, second] = paths.map((path) => VirtualMachine.start(path));
  if (first === undefined || second === undefined) throw new Error('two machines');
  await restart(
    'SIGTERM',
    all.filter((arg) => arg !== `--socket-path=${paths[0] ?? ''}`),
  );
  t.equal(first.frontend.receive(), undefined, 'disconnected');
  t.equal(second.request(64).length, 64);
  t.match(manager.log, /a front-end is not taken over, and disconnected: .*got rng0 \[takeover_refused\]/);
  t.notOk(manager.names.includes('vhost-rngd.ledger.rng0'), 'nothing of it is kept');
  first.close();
  second.close();
});

await t.test('a guest whose files were not all kept: it is not shown as connected', async (t) => {
  const { path, all, manager, device } = await startKept(t);
  const vm = VirtualMachine.start(path);
  t.equal(vm.request(64).length, 64);
  await manager.kill('SIGKILL');
  // As a store that was full would have it.
  const lost = manager.store.findIndex(({ name }) => name.startsWith('vhost-rngd.fd.'));
  for (const { fd } of manager.store.splice(lost, 1)) closeFd(fd);
  await manager.start(all);
  t.match(manager.log, /none of number \d+: raise FileDescriptorStoreMax \[takeover_refused\]/);
  t.match(await device(), { state: 'listening', frontEnds: [], requests: 1, connections: 1 });
  vm.close();
});

/** What a VMM may do before its ring is no longer covered by its memory. */
const UNCOVERED: readonly (readonly [string, (vm: VirtualMachine) => void])[] = [
  ['a ring that was stopped before', (vm) => void vm.frontend.getVringBase()],
  ['a ring that ran', () => undefined],
];

for (const [title, before] of UNCOVERED) {
  await t.test(`${title}, and memory that no longer covers it: the connection goes on`, async (t) => {
    const { path, restart, manager } = await startKept(t);
    const vm = VirtualMachine.start(path);
    t.equal(vm.request(64).length, 64);
    before(vm);
    const other = new GuestRam([{ guestPhysAddr: 0x2_0000_0000n, bytes: 2 ** 20, sealed: true }]);
    vm.frontend.setMemTable(other);
    t.ok(vm.frontend.answers());
    await restart('SIGTERM');
    t.ok(vm.frontend.answers());
    t.notMatch(manager.log, /the connection was closed/);
    vm.close();
    other.close();
  });
}

await t.test('fewer connections than before: one guest goes on, nothing of the other is kept', async (t) => {
  const { path, all, restart, manager } = await startKept(t, ['--connections=2']);
  const machines = [1, 2].map(() => VirtualMachine.start(path));
  for (const machine of machines) t.equal(machine.request(64).length, 64);
  await restart('SIGTERM', [...all.filter((arg) => !arg.startsWith('--connections')), '--connections=1']);
  const [first, second] = machines;
  if (first === undefined || second === undefined) throw new Error('two machines');
  t.equal(second.frontend.receive(), undefined, 'disconnected');
  t.equal(first.request(64).length, 64);
  await manager.until(
    () => manager.names.filter((name) => name.startsWith('vhost-rngd.front-end.')).length === 1,
    'one record',
  );
  t.match(
    manager.log,
    /expected at most 1 front-ends, got one more: it is disconnected \[takeover_refused\]/,
  );
  for (const machine of machines) machine.close();
});

await t.test(
  'after a restart a device is removed, and another of its name added: each is as new',
  async (t) => {
    const { paths, restart, control, device, manager } = await startKept(t, [], 2);
    const [path = '', otherPath = ''] = paths;
    const other = VirtualMachine.start(otherPath);
    t.equal(other.request(64).length, 64);
    await restart('SIGKILL');
    for (let time = 1; time <= 2; time++) {
      t.equal((await ask(control, 'DELETE /v1/devices/rng0')).status, 200);
      t.equal((await ask(control, 'POST /v1/devices', { name: 'rng0', socket: path })).status, 201);
      const vm = VirtualMachine.start(path);
      t.equal(vm.request(64).length, 64);
      t.match(await device(), { connections: 1, requests: 1 }, `time ${time}`);
      vm.settle();
      vm.close();
      t.equal(other.request(64).length, 64, 'the other device serves on');
    }
    t.match(await device('rng1'), { requests: 3 });
    t.notMatch(manager.log, /\[internal\]/);
    other.close();
  },
);

await t.test(
  'killed at random moments under a guest that reads without pause: no byte twice, no request lost',
  async (t) => {
    const { path, manager, all } = await startKept(t);
    const guest = new ReadingGuest(t, path);
    const seed = Date.now() % 2 ** 31;
    t.comment(`seed ${seed}`);
    let random = seed;
    for (let kills = 0; kills < 12; kills++) {
      const before = guest.count;
      await guest.readUntil(() => guest.count > before + 4096, 'more of this process');
      random = (random * 48_271) % 0x7fff_ffff;
      // At any point of a pass: the guest's thread gives it work, and the signal comes meanwhile.
      for (const endMs = performance.now() + (random % 3000) / 100; performance.now() < endMs;) guest.take();
      process.kill(manager.pid, 'SIGKILL');
      await manager.kill('SIGKILL');
      await manager.start(all);
    }
    const before = guest.count;
    await guest.readUntil(() => guest.count > before + 4096, 'more of the last process');
    const { bytes } = guest;
    const blocks = new Set<string>();
    for (let at = 0; at + 16 <= bytes.length; at += 16) blocks.add(bytes.toString('latin1', at, at + 16));
    t.equal(blocks.size, Math.floor(bytes.length / 16), `no block of 16 twice in ${bytes.length} bytes`);
  },
);

await t.test(
  'a VMM that reads its replies late: each comes once, in order, over kills at any moment',
  async (t) => {
    const { path, manager, all } = await startKept(t);
    const vm = VirtualMachine.start(path);
    const asked: number[] = [FrontendRequest.GetFeatures, FrontendRequest.GetProtocolFeatures];
    const pair = Buffer.concat(
      asked.map((request) => encodeHeader({ request, reply: false, needReply: false, payloadBytes: 0 })),
    );
    // More than the socket holds, less than what may wait.
    const burst = Buffer.concat(Array.from({ length: 500 }, () => pair));
    let bursts = 0;
    for (; bursts < 6; bursts++) {
      t.equal(vm.frontend.sendAll(burst), burst.length);
      await setTimeout(Math.random() * 20);
      await manager.kill('SIGKILL');
      await manager.start(all);
    }
    let wrong = 0;
    for (let i = 0; i < bursts * 500; i++)
      for (const request of asked) if (vm.frontend.receive()?.request !== request) wrong++;
    t.equal(wrong, 0);
    t.equal(vm.request(64).length, 64);
    t.ok(vm.frontend.answers(), 'and none is left');
    vm.close();
  },
);

await t.test('a message that has begun goes on in the next process', async (t) => {
  const { path, manager, all } = await startKept(t);
  const vm = VirtualMachine.start(path);
  const request = FrontendRequest.GetFeatures;
  const message = encodeHeader({ request, reply: false, needReply: false, payloadBytes: 0 });
  vm.frontend.sendBytes(message.subarray(0, 7));
  vm.request(64);
  await manager.kill('SIGKILL');
  await manager.start(all);
  vm.frontend.sendBytes(message.subarray(7));
  t.ok(vm.frontend.receive() !== undefined, 'answered');
  t.equal(vm.request(64).length, 64);
  vm.close();
});
