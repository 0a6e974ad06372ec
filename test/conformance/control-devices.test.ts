// Devices and what an operator sees and changes of them while guests run, over the control socket of the real daemon.
//
// Leaves out: what is refused (control-socket), the configuration file (config-file), health (health).
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import * as v from 'valibot';
import { type DeviceStatus, DeviceShape } from '../../daemon/control/shapes.js';
import { DEFAULT_FEATURES } from '../support/frontend.js';
import { ask, RawClient } from '../support/control-client.js';
import { startDaemon } from '../support/guest/daemon.js';
import { eventually, type RngDaemon, startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { runToEnd } from '../support/started-process.js';
import { VirtualMachine } from '../support/virtual-machine.js';

interface Controlled extends RngDaemon {
  readonly control: string;
  readonly device: (name?: string) => Promise<DeviceStatus>;
}

async function startControlled(
  t: Test,
  options: { devices?: number; args?: readonly string[] } = {},
): Promise<Controlled> {
  const control = join(temporaryFolder(t), 'control.sock');
  const args = [`--control-socket=${control}`, ...(options.args ?? [])];
  const started = await startRngDaemon(t, { devices: options.devices ?? 1, args });
  return { ...started, control, device: async (name = 'rng0') => deviceOf(control, name) };
}

async function deviceOf(control: string, name: string): Promise<DeviceStatus> {
  return v.parse(DeviceShape, (await ask(control, `GET /v1/devices/${name}`)).json);
}

/** Waits until the device is as `wanted` says. */
async function becomes(
  t: Test,
  look: () => Promise<DeviceStatus>,
  wanted: object,
  title: string,
): Promise<void> {
  let last = await look();
  for (const endMs = performance.now() + 5000; performance.now() < endMs; last = await look()) {
    if (contains(last, wanted)) break;
  }
  t.match(last, wanted, title);
}

function contains(found: unknown, wanted: unknown): boolean {
  if (typeof wanted !== 'object' || wanted === null) return found === wanted;
  if (typeof found !== 'object' || found === null) return false;
  return Object.entries(wanted).every(([key, inner]) =>
    contains((found as Record<string, unknown>)[key], inner),
  );
}

await t.test('a device as it comes to life, serves and is left', async (t) => {
  const { device, path, daemon } = await startControlled(t);
  t.match(await device(), { name: 'rng0', socket: path, state: 'listening', frontEnds: [], requests: 0 });
  const vm = VirtualMachine.start(path);
  for (let i = 0; i < 1000; i++) vm.request(64);
  const status = await device();
  t.match(status, {
    state: 'connected',
    frontEnds: [
      {
        pid: process.pid,
        uid: process.getuid?.(),
        virtioFeatures: ['PROTOCOL_FEATURES', 'VERSION_1'],
        memory: { regions: 1, bytes: 1 << 20, sealed: true },
        ring: { state: 'running', size: 16, heldFor: null },
      },
    ],
    requests: 1000,
    bytes: 64_000,
    connections: 1,
    throttledSeconds: 0,
    lastError: null,
  });
  t.ok(status.frontEnds[0]?.protocolFeatures.includes('REPLY_ACK'));
  const { p50Seconds, p99Seconds } = status.latency;
  t.ok(
    p50Seconds !== null && p99Seconds !== null && p50Seconds > 0 && p50Seconds <= p99Seconds,
    'latency was sampled',
  );
  vm.close();
  await becomes(
    t,
    device,
    { state: 'listening', frontEnds: [], requests: 1000, bytes: 64_000 },
    'counts stay',
  );
  t.ok(daemon.isRunning);
});

await t.test('unsealed memory, other features, a second front-end and a fault show', async (t) => {
  const { device, path } = await startControlled(t);
  const vm = VirtualMachine.start(path, {
    sealed: false,
    features: DEFAULT_FEATURES | (1n << 29n),
    size: 64,
  });
  vm.request();
  t.match(await device(), {
    frontEnds: [
      {
        virtioFeatures: ['EVENT_IDX', 'PROTOCOL_FEATURES', 'VERSION_1'],
        memory: { sealed: false },
        ring: { size: 64 },
      },
    ],
  });
  const second = VirtualMachine.connect(path);
  await becomes(
    t,
    device,
    { refusedConnections: 1, lastError: { code: 'busy' } },
    'the second one is counted',
  );
  second.close();
  vm.request(0);
  await becomes(t, device, { malformedChains: 1 }, 'a chain without a byte');
  vm.ring.offer(9999);
  vm.ring.publish();
  vm.frontend.kickRing();
  await becomes(t, device, { ringFaults: 1, frontEnds: [{ ring: { state: 'faulted' } }] }, 'a corrupt ring');
  const { lastError } = await device();
  t.match(lastError, {
    code: 'ring_corrupt',
    message: /expected a head below 64, got 9999/,
    time: /^\d{4}-/,
  });
  vm.close();
});

await t.test(
  'pause holds requests and keeps the connection; resume serves them without a new kick',
  async (t) => {
    const { control, device, path } = await startControlled(t);
    const vm = VirtualMachine.start(path);
    vm.request();
    t.match(await ask(control, 'PATCH /v1/devices/rng0', { paused: true }), {
      status: 200,
      json: { state: 'paused' },
    });
    vm.ring.request(0, 0x40000n, 64);
    vm.frontend.kickRing();
    vm.settle();
    t.equal(vm.ring.take(), undefined, 'held');
    t.match(await device(), {
      state: 'paused',
      frontEnds: [{ ring: { state: 'held', heldFor: 'pause' } }],
      requests: 1,
    });
    await ask(control, 'PATCH /v1/devices/rng0', { paused: false });
    t.equal(vm.frontend.waitUsed(vm.ring, 1)[0]?.length, 64, 'served');
    t.match(await device(), {
      state: 'connected',
      frontEnds: [{ ring: { state: 'running', heldFor: null } }],
      requests: 2,
    });
    vm.close();
  },
);

await t.test('a limit takes effect at once, on what was delivered before too, and goes again', async (t) => {
  const { control, device, path } = await startControlled(t);
  const vm = VirtualMachine.start(path);
  const limit = { maxBytes: 1000, periodMs: 3_600_000 };
  t.match(await ask(control, 'PATCH /v1/devices/rng0', { limit }), { status: 200, json: { limit } });
  let got = 0;
  while (got < 1000) got += vm.request(64).length;
  t.equal(got, 1000, 'to the byte');
  vm.ring.request(0, 0x40000n, 64);
  vm.frontend.kickRing();
  vm.settle();
  t.equal(vm.ring.take(), undefined, 'held');
  t.match(await device(), { frontEnds: [{ ring: { state: 'held', heldFor: 'limit' } }] });
  t.ok((await device()).throttledSeconds > 0);
  await ask(control, 'PATCH /v1/devices/rng0', { limit: { maxBytes: 1010, periodMs: 3_600_000 } });
  t.equal(
    vm.frontend.waitUsed(vm.ring, 1)[0]?.length,
    10,
    'the larger limit counts what was delivered under the smaller',
  );
  vm.ring.request(0, 0x40000n, 64);
  vm.frontend.kickRing();
  await ask(control, 'PATCH /v1/devices/rng0', { limit: null });
  t.equal(vm.frontend.waitUsed(vm.ring, 1)[0]?.length, 64, 'no limit');
  t.match(await device(), { limit: null });
  vm.close();
});

await t.test('devices are added and removed while others are served', async (t) => {
  const { control, path, folder, daemon, device } = await startControlled(t);
  const vm = VirtualMachine.start(path);
  const socket = join(folder, 'late.sock');
  const added = await ask(control, 'POST /v1/devices', {
    name: 'late',
    socket,
    limit: { maxBytes: 10, periodMs: 1000 },
    socketMode: '0600',
  });
  t.match(added, {
    status: 201,
    json: { name: 'late', socket, state: 'listening', limit: { maxBytes: 10 } },
  });
  const late = VirtualMachine.start(socket);
  t.equal(late.request(64).length, 10);
  t.match(await ask(control, 'POST /v1/devices', { name: 'late', socket: `${socket}2` }), {
    status: 409,
    json: { error: { code: 'device_exists' } },
  });
  t.match(await ask(control, 'POST /v1/devices', { name: 'other', socket: path }), {
    status: 400,
    json: { error: { code: 'socket_path_live' } },
  });
  t.match(await ask(control, 'POST /v1/devices', { name: 'other', socket: '/no/folder/a' }), {
    json: { error: { code: 'socket_folder_missing' } },
  });
  t.match(await ask(control, 'GET /v1/devices'), { json: { devices: [{ name: 'rng0' }, { name: 'late' }] } });
  t.match(await ask(control, 'DELETE /v1/devices/late'), { status: 200, json: {} });
  t.ok(await eventually(() => !late.frontend.answers()), 'its front-end is disconnected');
  t.notOk(existsSync(socket), 'its socket file is gone');
  t.match(await ask(control, 'GET /v1/devices/late'), { status: 404 });
  t.match(await ask(control, 'DELETE /v1/devices/late'), { status: 404 });
  t.equal(vm.request().length, 64, 'the other is served');
  t.match(await device(), { connections: 1 });
  await daemon.waitForLog(/late: added, listening on .*\(by uid \d+, pid \d+\) \[device_added\]/, 5000);
  await daemon.waitForLog(/late: removed \(by uid \d+, pid \d+\) \[device_removed\]/, 5000);
  late.close();
  vm.close();
});

await t.test('a watcher sees what happens', async (t) => {
  const { control, path } = await startControlled(t);
  const watcher = new RawClient(control);
  watcher.send('GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n');
  t.ok(await eventually(() => watcher.received.includes('200 OK')));
  const vm = VirtualMachine.start(path);
  t.ok(await eventually(() => watcher.received.includes('"code":"connected"')));
  await ask(control, 'PATCH /v1/devices/rng0', { paused: true });
  t.ok(await eventually(() => watcher.received.includes('"code":"device_changed"')));
  t.match(watcher.received, /"device":"rng0".*"pid":\d+/);
  vm.close();
  watcher.close();
});

await t.test('a state file brings changes back after a restart', async (t) => {
  const folder = temporaryFolder(t);
  const at = (name: string): string => join(folder, name);
  const args = [
    `--socket-path=${at('a.sock')}`,
    `--socket-path=${at('b.sock')}`,
    `--control-socket=${at('c.sock')}`,
    `--state-file=${at('state')}`,
  ];
  const first = await startDaemon(args);
  t.teardown(() => first.kill());
  await ask(at('c.sock'), 'POST /v1/devices', { name: 'late', socket: at('late.sock'), limit: null });
  await ask(at('c.sock'), 'POST /v1/devices', { name: 'brief', socket: at('brief.sock') });
  await ask(at('c.sock'), 'DELETE /v1/devices/brief');
  await ask(at('c.sock'), 'DELETE /v1/devices/b');
  await ask(at('c.sock'), 'PATCH /v1/devices/a', { limit: { maxBytes: 5, periodMs: 1000 } });
  await ask(at('c.sock'), 'PATCH /v1/devices/a', { paused: true });
  await first.stop();
  t.notOk(existsSync(`${at('state')}.new`));
  const second = await startDaemon([...args.filter((arg) => !arg.endsWith('b.sock'))]);
  t.teardown(() => second.kill());
  const { json } = await ask(at('c.sock'), 'GET /v1/devices');
  t.match(json, {
    devices: [
      { name: 'a', state: 'paused', limit: { maxBytes: 5, periodMs: 1000 } },
      { name: 'late', state: 'listening', limit: null },
    ],
  });
  t.equal((json as { devices: unknown[] }).devices.length, 2);
  await second.stop();
  writeFileSync(at('state'), readFileSync(at('state'), 'utf8').replace('"added"', '"add"'));
  t.match(runToEnd(args), {
    status: 78,
    stderr: /state: added: expected a value, got none; correct it, or remove it .*\[state_file\]/,
  });
});
