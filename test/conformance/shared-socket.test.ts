// `--connections=N`: one socket serves N front-ends at a time, each with a ring of its own, all within the device's limit.
//
// Leaves out: the row of rings under a limit (limit-turns), one front-end at a time (connections).
import { join } from 'node:path';
import t, { type Test } from 'tap';
import * as v from 'valibot';
import { type DeviceStatus, DeviceShape } from '../../daemon/control/shapes.js';
import { ask } from '../support/control-client.js';
import type { UsedElement } from '../support/driver-ring.js';
import { eventually, startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { VirtualMachine } from '../support/virtual-machine.js';

async function startShared(t: Test, connections: number, args: readonly string[] = []) {
  const control = join(temporaryFolder(t), 'control.sock');
  const started = await startRngDaemon(t, {
    args: [`--control-socket=${control}`, `--connections=${connections}`, ...args],
  });
  const device = async (): Promise<DeviceStatus> =>
    v.parse(DeviceShape, (await ask(control, 'GET /v1/devices/rng0')).json);
  return { ...started, control, device };
}

/** Asks until the answer is yes; false after 5 s. */
async function becomes(look: () => Promise<boolean>): Promise<boolean> {
  for (const endMs = performance.now() + 5000; performance.now() < endMs;) if (await look()) return true;
  return false;
}

function takeAll({ ring }: VirtualMachine): UsedElement[] {
  const used: UsedElement[] = [];
  for (let one = ring.take(); one !== undefined; one = ring.take()) used.push(one);
  return used;
}

await t.test(
  'three guests on one socket read at once; a fourth is turned away; one leaves, another comes',
  async (t) => {
    const { path, device, daemon } = await startShared(t, 3);
    const machines = [1, 2, 3].map(() => VirtualMachine.start(path));
    for (let i = 0; i < 100; i++) for (const machine of machines) t.equal(machine.request(64).length, 64);
    const status = await device();
    t.match(status, { state: 'connected', maxConnections: 3, requests: 300, bytes: 19_200, connections: 3 });
    t.equal(status.frontEnds.length, 3);
    for (const frontEnd of status.frontEnds)
      t.match(frontEnd, { pid: process.pid, ring: { state: 'running', size: 16 } });

    const fourth = VirtualMachine.connect(path);
    t.equal(fourth.frontend.receive(), undefined, 'the fourth is closed at once');
    t.ok(await eventually(() => /one more front-end .* serves 3 at a time \[busy\]/.test(daemon.log)));
    t.equal((await device()).refusedConnections, 1);

    machines[1]?.close();
    t.ok(await becomes(async () => (await device()).frontEnds.length === 2), 'one has left');
    const next = VirtualMachine.start(path);
    t.equal(next.request(64).length, 64, 'its seat is free');
    t.equal(machines[0]?.request(64).length, 64, 'the others have not noticed');
    t.match(await device(), { requests: 302, connections: 4 }, 'counts go on');
    for (const machine of [...machines, next, fourth]) machine.close();
  },
);

await t.test('a ring that is corrupt, and a connection that breaks the protocol, end alone', async (t) => {
  const { path, device } = await startShared(t, 2);
  const [good, bad] = [VirtualMachine.start(path), VirtualMachine.start(path)];
  bad.ring.availIndex = 1000;
  bad.ring.publish();
  bad.frontend.kickRing();
  t.ok(await becomes(async () => (await device()).ringFaults === 1), 'the ring is stopped');
  t.equal(good.request(64).length, 64);
  const states = (await device()).frontEnds.map(({ ring }) => ring.state).sort();
  t.same(states, ['faulted', 'running']);
  bad.close();
  t.ok(await becomes(async () => (await device()).frontEnds.length === 1));
  t.equal(good.request(64).length, 64);
  good.close();
});

await t.test(
  'the limit is of the device: two guests together have it, and neither is left out',
  async (t) => {
    const { path, device } = await startShared(t, 2, ['--max-bytes=6400', '--period=400']);
    const machines = [VirtualMachine.start(path), VirtualMachine.start(path)];
    const startedMs = performance.now();
    for (const machine of machines) machine.offerAll(64);
    const taken = [0, 0];
    while (performance.now() - startedMs < 2000) {
      for (const [i, machine] of machines.entries()) {
        machine.frontend.kickRing();
        const used = takeAll(machine);
        taken[i] = (taken[i] ?? 0) + used.reduce((sum, { length }) => sum + length, 0);
        for (const { id } of used) machine.ring.offer(id);
        if (used.length > 0) machine.ring.publish();
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const elapsedMs = performance.now() - startedMs;
    const { bytes, throttledSeconds } = await device();
    t.ok(bytes <= (Math.floor(elapsedMs / 400) + 1) * 6400, `${bytes} bytes in ${elapsedMs} ms`);
    t.ok(bytes >= 4 * 6400, `${bytes} bytes: the limit is used`);
    const [first = 0, second = 0] = taken;
    t.ok(Math.min(first, second) * 3 >= Math.max(first, second), `shared: ${first} and ${second}`);
    t.ok(throttledSeconds > 0);
    for (const machine of machines) machine.close();
  },
);

await t.test('an operator pauses and removes all of them', async (t) => {
  const { path, control, device } = await startShared(t, 2);
  const machines = [VirtualMachine.start(path), VirtualMachine.start(path)];
  await ask(control, 'PATCH /v1/devices/rng0', { paused: true });
  for (const machine of machines) {
    machine.ring.request(0, 0x40000n, 64);
    machine.frontend.kickRing();
  }
  t.ok(
    await becomes(async () => (await device()).frontEnds.every(({ ring }) => ring.heldFor === 'pause')),
    'both are held',
  );
  await ask(control, 'PATCH /v1/devices/rng0', { paused: false });
  for (const machine of machines) t.equal(machine.frontend.waitUsed(machine.ring, 1)[0]?.length, 64);
  await ask(control, 'DELETE /v1/devices/rng0');
  for (const machine of machines) {
    t.equal(machine.frontend.receive(), undefined, 'disconnected');
    machine.close();
  }
});
