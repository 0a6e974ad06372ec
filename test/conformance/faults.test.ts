// What a VMM does to a daemon by failing: killed, stopped, hung up half-way, many at a time, with memory that shrinks. Rows F1
// to F4, F9, F12, F18 and F19 of ARCHITECTURE.md, "Faults". What a machine leaves behind is measured in /proc.
//
// Leaves out: sources (faults-source), streams (faults-streams), F16 (split-ring-service), what needs a real guest (end-to-end).
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { FrontendRequest } from '../../protocol/request.js';
import { encodeRequest } from '../../protocol/reply.js';
import { signal } from '../../shared-memory/eventfd.js';
import { Frontend } from '../support/frontend.js';
import { ChildProcess } from '../support/guest/child-process.js';
import {
  eventually,
  lowestFreeFd,
  memfdMappings,
  openFdCount,
  residentKib,
  startRngDaemon,
} from '../support/rng-daemon.js';
import { MemorySnapshot } from '../support/untouched.js';
import { DATA_BASE, VirtualMachine } from '../support/virtual-machine.js';

const VMM = fileURLToPath(new URL('../support/vmm-process.js', import.meta.url));
const TITLES = { process: 'the VMM', stdout: 'VMM output', stderr: 'VMM errors' };

/** Longer than any time-out for a message that has begun. */
const LONG_STOP_MS = 11_000;

await t.test(
  'F1: a VMM killed with requests pending: all of it is let go, other machines go on',
  async (t) => {
    // Each device may give 64 bytes in ten minutes, so all but the first request of 16 are pending.
    const { daemon, paths } = await startRngDaemon(t, {
      devices: 2,
      args: ['--max-bytes=64', '--period=600000'],
    });
    const other = VirtualMachine.start(paths[1] ?? '');
    t.teardown(() => other.close());
    other.settle();
    const fds = openFdCount(daemon.pid);
    const mappings = memfdMappings(daemon.pid);
    for (let round = 0; round < 3; round++) {
      const vmm = new ChildProcess(TITLES, process.execPath, [VMM, paths[0] ?? '', '16']);
      await vmm.stdout.waitFor(/ready/, 20_000);
      t.ok(openFdCount(daemon.pid) > fds && memfdMappings(daemon.pid) > mappings, 'it is served');
      await vmm.kill();
      t.ok(await eventually(() => openFdCount(daemon.pid) === fds), 'its descriptors are closed');
      t.ok(await eventually(() => memfdMappings(daemon.pid) === mappings), 'its memory is unmapped');
    }
    t.same(other.request(), { id: 0, length: 64 }, 'another machine is served');
    t.ok(daemon.isRunning);
  },
);

await t.test('F2, short form: a VMM stopped for 11 s is served as before when it goes on', async (t) => {
  const { daemon, paths } = await startRngDaemon(t, {
    devices: 2,
    args: ['--max-bytes=64000', '--period=500'],
  });
  const vmm = new ChildProcess(TITLES, process.execPath, [VMM, paths[0] ?? '', '16']);
  t.teardown(() => vmm.kill());
  await vmm.stdout.waitFor(/completed/, 20_000);
  const stoppedAtMs = performance.now();
  vmm.signal('SIGSTOP');
  const other = VirtualMachine.start(paths[1] ?? '');
  const before = residentKib(daemon.pid);
  while (performance.now() - stoppedAtMs < LONG_STOP_MS) {
    if (other.request(16).length !== 16) t.fail('the other machine is not served');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  t.ok(residentKib(daemon.pid) - before < 20_000, 'nothing piles up');
  const from = vmm.stdout.text.length;
  vmm.signal('SIGCONT');
  await vmm.stdout.waitFor(/completed/, 10_000, from);
  t.notMatch(daemon.log, /disconnected/, 'no connection was closed');
  other.close();
});

await t.test(
  'F3: a VMM that closes its socket and keeps its eventfds: kicks lead to nothing any more',
  async (t) => {
    const { daemon, path } = await startRngDaemon(t);
    const vm = VirtualMachine.start(path);
    vm.request();
    const fds = openFdCount(daemon.pid);
    vm.frontend.hangUp();
    t.ok(await eventually(() => openFdCount(daemon.pid) < fds && memfdMappings(daemon.pid) === 0));
    vm.frontend.waitCall(0);
    vm.ring.request(1, DATA_BASE, 64);
    const snapshot = new MemorySnapshot(vm.ram);
    for (let i = 0; i < 10; i++) signal(vm.frontend.kick);
    const next = VirtualMachine.start(path);
    next.settle();
    t.equal(snapshot.firstChange([]), undefined, 'not one byte is written');
    t.equal(vm.frontend.waitCall(0), 0, 'nothing is signalled');
    t.same(next.request(), { id: 0, length: 64 });
    next.close();
    vm.close();
  },
);

const CUTS: Readonly<Record<string, (vm: VirtualMachine) => void>> = {
  'after SET_MEM_TABLE': ({ frontend, ram }) => {
    frontend.negotiate();
    frontend.setMemTable(ram);
  },
  'while SET_MEM_TABLE is not answered yet': ({ frontend, ram }) => {
    frontend.negotiate();
    frontend.send({ request: FrontendRequest.SetMemTable, regions: ram.regions }, { fds: ram.fds });
  },
  'within SET_MEM_TABLE': ({ frontend, ram }) => {
    const payload = new Uint8Array(40);
    frontend.sendBytes(
      encodeRequest(FrontendRequest.SetMemTable, payload, { needReply: true }).subarray(0, 20),
      ram.fds,
    );
  },
  'after SET_VRING_KICK': ({ frontend, ram, ring }) => {
    frontend.setUp(ram, ring);
  },
};

for (const [when, cut] of Object.entries(CUTS)) {
  await t.test(`F4: 300 VMMs that die ${when} (instead of 10,000) leave nothing behind`, async (t) => {
    const { daemon, path } = await startRngDaemon(t);
    const fds = openFdCount(daemon.pid);
    for (let i = 0; i < 300; i++) {
      const vm = VirtualMachine.connect(path);
      cut(vm);
      vm.close();
    }
    t.ok(
      await eventually(() => openFdCount(daemon.pid) === fds),
      `${openFdCount(daemon.pid)} of ${fds} descriptors`,
    );
    t.equal(memfdMappings(daemon.pid), 0);
    const vm = VirtualMachine.start(path);
    t.same(vm.request(), { id: 0, length: 64 });
    vm.close();
  });
}

await t.test(
  'F9: no descriptor is free for an accept: others go on, and accepting recovers by itself',
  async (t) => {
    const { daemon, paths } = await startRngDaemon(t, { devices: 2 });
    const vm = VirtualMachine.start(paths[0] ?? '');
    t.teardown(() => vm.close());
    vm.settle();
    // Threads that start need descriptors too.
    await daemon.waitForLog(/\[source_ready\]/, 5000);
    const limit = (count: number) =>
      execFileSync('prlimit', [`--pid=${daemon.pid}`, `--nofile=${count}:4096`]);
    limit(lowestFreeFd(daemon.pid));
    const late = Frontend.connect(paths[1] ?? '');
    await daemon.waitForLog(/accepting failed: EMFILE.*LimitNOFILE.*\[accept_failed\]/, 5000);
    for (let i = 0; i < 100; i++) if (vm.request().length !== 64) t.fail('the first machine is not served');
    t.equal(daemon.log.match(/accept_failed/g)?.length, 1, 'no storm in the log');
    limit(1024);
    t.ok(late.answers(), 'the one that waited is accepted');
    late.close();
    t.ok(daemon.isRunning);
  },
);

for (const [what, region] of Object.entries({ 'the ring': 0, 'the buffers': 1 })) {
  await t.test(
    `F12: memory that shrinks under ${what}: the ring stops, process and connection live`,
    async (t) => {
      const { daemon, paths } = await startRngDaemon(t, { devices: 2 });
      const regions = [
        { guestPhysAddr: 0x10000n, bytes: 0x10000, sealed: false },
        { guestPhysAddr: 0x40000n, bytes: 0x10000, sealed: false },
      ];
      const vm = VirtualMachine.start(paths[0] ?? '', { regions });
      t.same(vm.request(), { id: 0, length: 64 });
      vm.ring.request(1, DATA_BASE, 64);
      vm.ram.truncate(region, 0);
      vm.frontend.kickRing();
      t.equal(vm.frontend.waitErr(), 1);
      vm.settle();
      t.equal(vm.frontend.waitErr(0), 0);
      await daemon.waitForLog(/guest memory has vanished.*\[memory_vanished\]/, 5000);
      const other = VirtualMachine.start(paths[1] ?? '');
      t.same(other.request(), { id: 0, length: 64 });
      other.close();
      vm.close();
      t.match(await daemon.stop(), { code: 0 });
    },
  );
}

const CONNECTS = 4000;
/** Room for a collector that has not run yet; one leaked connection of 10 KiB each would be 40 MiB. */
const GROWTH_KIB = 20_000;

await t.test(
  `F18: ${CONNECTS} connects (instead of 600,000), 400 of them whole sessions: flat`,
  async (t) => {
    const { daemon, path } = await startRngDaemon(t);
    const fds = openFdCount(daemon.pid);
    const run = (count: number): void => {
      for (let i = 0; i < count; i++) {
        if (i % 10 !== 0) {
          Frontend.connect(path).close();
          continue;
        }
        const vm = VirtualMachine.start(path);
        vm.request();
        vm.close();
      }
    };
    run(CONNECTS / 4);
    const before = residentKib(daemon.pid);
    run((CONNECTS / 4) * 3);
    t.ok(
      await eventually(() => openFdCount(daemon.pid) === fds),
      `${openFdCount(daemon.pid)} of ${fds} descriptors`,
    );
    t.equal(memfdMappings(daemon.pid), 0);
    const growth = residentKib(daemon.pid) - before;
    t.comment(`${growth} KiB more`);
    t.ok(growth < GROWTH_KIB);
  },
);

await t.test(
  'F19: a VMM that sends and never reads: the others are not affected, and it is closed',
  async (t) => {
    const { daemon, paths } = await startRngDaemon(t, { devices: 2 });
    const stalled = Frontend.connect(paths[0] ?? '');
    const other = VirtualMachine.start(paths[1] ?? '');
    const request = encodeRequest(FrontendRequest.GetFeatures, new Uint8Array(0), { needReply: false });
    const many = Buffer.concat(Array.from({ length: 1000 }, () => request));
    const closed = await eventually(() => {
      const sent = stalled.sendBytes(many);
      if (other.request().length !== 64) t.fail('the other machine is not served');
      return sent < 0 && sent !== -11;
    }, 20_000);
    t.ok(closed, 'closed');
    await daemon.waitForLog(/\[replies_not_read\]/, 5000);
    stalled.close();
    other.close();
  },
);
