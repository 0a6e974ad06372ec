// A new daemon goes on with the guests of an old one, without a service manager (`--takeover`): the VMM sees no disconnect and no message.
// Whatever keeps the new one from it, the old one serves on.
//
// Leaves out: a real guest (end-to-end).
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import * as v from 'valibot';
import { DeviceShape, type DeviceStatus, StatusShape } from '../../daemon/control/shapes.js';
import { NotifySocket } from '../../daemon/systemd/notify-socket.js';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import { bindTo, MessageBuffer, openDatagramSocket } from '../../shared-memory/unix-socket.js';
import { ask } from '../support/control-client.js';
import { eventually, temporaryFolder } from '../support/rng-daemon.js';
import { isLive, MAIN, runToEnd, startProcess, waitUntilLive } from '../support/started-process.js';
import { DATA_BASE, VirtualMachine } from '../support/virtual-machine.js';

const EX_TEMPFAIL = 75;
const PATIENCE_MS = 20_000;
const LOOK_EVERY_MS = 5;

type Started = ReturnType<typeof startProcess>;

/** An old daemon, and how a new one takes over from it. */
async function startOld(t: Test, args: readonly string[] = [], devices = 1) {
  const folder = temporaryFolder(t);
  const paths = Array.from({ length: devices }, (_, i) => join(folder, `rng${i}.sock`));
  const path = paths[0] ?? '';
  const control = join(folder, 'control.sock');
  const all = [...paths.map((one) => `--socket-path=${one}`), `--control-socket=${control}`, ...args];
  const start = (more: readonly string[]): Started & { readonly log: Promise<string> } => {
    const env = { NODE_OPTIONS: '', NOTIFY_SOCKET: '' };
    const started = startProcess(t, more, { stdio: ['ignore', 'ignore', 'pipe'], env });
    if (started.child.stderr === null) throw new Error('no standard error');
    return { ...started, log: text(started.child.stderr) };
  };
  const old = start(all);
  await waitUntilLive(path);
  await eventually(() => isLive(control), 5000);
  /** Starts the next one, and waits until it answers in the old one's place. */
  const takeOver = async (more: readonly string[] = all): Promise<Started> => {
    const next = start([...more, `--takeover=${control}`]);
    for (const endMs = performance.now() + PATIENCE_MS; (await pidBehind(control)) !== next.child.pid;) {
      if (performance.now() > endMs || next.child.exitCode !== null)
        throw new Error(`not taken over: ${await next.log}`);
      await setTimeout(LOOK_EVERY_MS);
    }
    return next;
  };
  const device = async (name = 'rng0'): Promise<DeviceStatus> =>
    v.parse(DeviceShape, (await ask(control, `GET /v1/devices/${name}`)).json);
  return { folder, paths, path, control, all, old, takeOver, device };
}

async function pidBehind(control: string): Promise<number | undefined> {
  try {
    return v.parse(StatusShape, (await ask(control, 'GET /v1/status')).json).pid;
  } catch {
    return undefined;
  }
}

/** Takes all that is passed, and keeps it, with a pause before each message; the last one. */
async function lastMessage(socket: Fd, pauseMs = 0): Promise<string> {
  const messages = new MessageBuffer();
  const buffer = new NativeMemory(4096);
  for (;;) {
    const got = messages.receive(socket, buffer, { offset: 0, length: 4096 }, []);
    if (got < 0 || pauseMs > 0) await setTimeout(Math.max(1, pauseMs));
    const told = got < 0 ? '' : buffer.bytes.toString('utf8', 0, got);
    if (told.startsWith('HANDOVER=')) return told;
  }
}

await t.test('a guest reads on in the next process, and in the one after', async (t) => {
  const { path, old, takeOver, device, control } = await startOld(t);
  const vm = VirtualMachine.start(path);
  for (let i = 0; i < 100; i++) t.equal(vm.request(64).length, 64);
  const { connections } = await device();
  let last: Started = old;
  for (let takeovers = 1; takeovers <= 2; takeovers++) {
    const next = await takeOver();
    t.same(await last.exited, { code: 0, signal: null }, 'the old one has ended');
    last = next;
    for (let i = 0; i < 10; i++) t.equal(vm.request(64).length, 64);
    t.match(await device(), {
      requests: 100 + 10 * takeovers,
      connections,
      frontEnds: [{ pid: process.pid }],
    });
  }
  t.ok(isLive(path), 'its socket file is served');
  vm.close();
  last.child.kill('SIGTERM');
  t.same(await last.exited, { code: 0, signal: null });
  t.notOk(existsSync(path) || existsSync(control), 'the files belong to the last one, which removes them');
});

await t.test('what waits, and what is limited, goes over', async (t) => {
  const { paths, takeOver, device } = await startOld(t, ['--max-bytes=640', '--period=3600000'], 2);
  const [held, other] = paths.map((path) => VirtualMachine.start(path));
  if (held === undefined || other === undefined) return;
  for (let i = 0; i < 9; i++) t.equal(held.request(64).length, 64);
  held.ring.request(0, DATA_BASE, 128);
  held.frontend.kickRing();
  t.equal(held.frontend.waitUsed(held.ring, 1)[0]?.length, 64, 'what is left of the limit');
  held.ring.request(1, DATA_BASE, 64);
  held.frontend.kickRing();
  held.settle();
  await takeOver();
  held.settle();
  t.match(await device('rng0'), { bytes: 640, frontEnds: [{ ring: { state: 'held', heldFor: 'limit' } }] });
  t.equal(other.request(64).length, 64);
  held.close();
  other.close();
});

await t.test('the lock of the state file goes over, and changes are kept in it', async (t) => {
  const stateFile = join(temporaryFolder(t), 'state.json');
  const { path, takeOver, device, control, all } = await startOld(t, [`--state-file=${stateFile}`]);
  await ask(control, 'PATCH /v1/devices/rng0', { weight: 7 });
  const vm = VirtualMachine.start(path);
  const next = await takeOver();
  t.match(await device(), { weight: 7 });
  t.equal(vm.request(64).length, 64);
  const refused = runToEnd(all);
  t.equal(refused.status, EX_TEMPFAIL);
  t.match(refused.stderr, new RegExp(`the daemon of pid ${next.child.pid} keeps`));
  vm.close();
});

await t.test('a new process without a state file: the old one is free for another daemon', async (t) => {
  const stateFile = join(temporaryFolder(t), 'state.json');
  const { takeOver, all } = await startOld(t, [`--state-file=${stateFile}`]);
  await takeOver(all.filter((arg) => !arg.startsWith('--state-file')));
  const control = join(temporaryFolder(t), 'control.sock');
  startProcess(t, [`--control-socket=${control}`, `--state-file=${stateFile}`], {
    stdio: 'ignore',
    env: { NODE_OPTIONS: '', NOTIFY_SOCKET: '' },
  });
  t.ok(await eventually(() => isLive(control), PATIENCE_MS), 'it has the lock');
});

await t.test('a device that the new one does not serve: the old one serves on', async (t) => {
  const { paths, path, old, control, device } = await startOld(t, [], 2);
  const vms = paths.map((one) => VirtualMachine.start(one));
  const { connections } = await device();
  const args = [`--socket-path=${path}`, `--control-socket=${control}`, `--takeover=${control}`];
  const run = runToEnd(args, { NODE_OPTIONS: '' });
  t.equal(run.status, EX_TEMPFAIL);
  t.match(
    run.stderr,
    /not taken over, the old daemon serves on: expected a device that is served, got rng1 \[takeover\]/,
  );
  for (const vm of vms) {
    for (let i = 0; i < 10; i++) t.equal(vm.request(64).length, 64);
    vm.close();
  }
  t.equal(await pidBehind(control), old.child.pid);
  t.equal((await device()).connections, connections);
  old.child.kill('SIGTERM');
  t.match(
    await old.log,
    /no new process has taken over, this one goes on: the new one has given up \[handover_failed\]/,
  );
  t.notOk(
    paths.some((one) => existsSync(one)),
    'its socket files were its own all the time',
  );
});

/** What keeps a new process from going on with every guest; the limit is that of files that may be open. */
const DECLINED: readonly (readonly [string, { readonly args?: string; readonly files?: number }, RegExp])[] =
  [
    ['too few connections', { args: '--connections=1' }, /expected 2 connections of rng0, got 1/],
    ['memory that it does not take', { args: '--memory=require-sealed' }, /rng0: expected memory sealed/],
    ['too few files', { files: 100 }, /files more that may be open, got fewer: raise LimitNOFILE/],
  ];

for (const [title, { args, files }, line] of DECLINED) {
  await t.test(`${title}: the new process declines, and no guest notices`, async (t) => {
    const { path, old, control } = await startOld(t, ['--connections=2']);
    const vms = [1, 2].map(() => VirtualMachine.start(path, { sealed: false }));
    for (const vm of vms) t.equal(vm.request(64).length, 64);
    const limit = files === undefined ? '' : `ulimit -n ${files}; `;
    const run = spawnSync(
      'sh',
      [
        ...['-c', `${limit}exec "$@"`, 'sh', process.execPath, MAIN, `--socket-path=${path}`],
        ...[args ?? '--connections=2', `--takeover=${control}`],
        ...(args === '--connections=1' ? [] : ['--connections=2']),
      ],
      { encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: '', NOTIFY_SOCKET: '' } },
    );
    t.equal(run.status, EX_TEMPFAIL);
    t.match(run.stderr, line);
    for (const vm of vms) {
      t.equal(vm.request(64).length, 64);
      vm.settle();
      vm.close();
    }
    t.equal(await pidBehind(control), old.child.pid);
  });
}

await t.test('an old process that has too few files to write its guests down serves on', async (t) => {
  const { path, old, control, all } = await startOld(t);
  const vm = VirtualMachine.start(path);
  t.equal(vm.request(64).length, 64);
  const pid = String(old.child.pid);
  const list = (): string => readdirSync(`/proc/${pid}/fd`).join();
  // Until connections of before are closed.
  for (let last = ''; last !== list();) {
    last = list();
    await setTimeout(500);
  }
  const used = new Set(list().split(',').map(Number));
  const free = Array.from({ length: used.size + 8 }, (_, fd) => fd).filter((fd) => !used.has(fd));
  const leave = (files: number): void => {
    const run = spawnSync('prlimit', ['--pid', pid, `--nofile=${free[files] ?? 0}:`]);
    if (run.status !== 0) throw new Error(run.stderr.toString());
  };
  for (const files of [1, 2]) {
    leave(files);
    const run = runToEnd([...all, `--takeover=${control}`], { NODE_OPTIONS: '' });
    t.equal(run.status, EX_TEMPFAIL, `${files}: ${run.stderr}`);
    for (let i = 0; i < 10; i++) t.equal(vm.request(64).length, 64);
  }
  t.equal(await pidBehind(control), old.child.pid);
  vm.close();
});

await t.test('a device without a front-end may be left out; its socket file goes', async (t) => {
  const { paths, path, control, takeOver } = await startOld(t, [], 2);
  const vm = VirtualMachine.start(path);
  await takeOver([`--socket-path=${path}`, `--control-socket=${control}`]);
  t.equal(vm.request(64).length, 64);
  t.same(
    paths.map((one) => existsSync(one)),
    [true, false],
  );
  vm.close();
});

await t.test(
  'a new process that dies half-way, with a request that waits: the old one serves it',
  async (t) => {
    const { path, control, folder, old } = await startOld(t);
    const vm = VirtualMachine.start(path);
    t.equal(vm.request(64).length, 64);
    const address = join(folder, 'passing');
    const socket = asFd(openDatagramSocket());
    t.equal(bindTo(socket, address), 0);
    t.match(await ask(control, 'POST /v1/handover', { socket: address }), { status: 200 });
    vm.ring.request(1, DATA_BASE, 64);
    vm.frontend.kickRing();
    // Nothing reads what is passed, and nothing finishes it.
    closeFd(socket);
    t.equal(vm.frontend.waitUsed(vm.ring, 1)[0]?.length, 64);
    t.match(await ask(control, 'POST /v1/handover/finish'), {
      status: 409,
      json: { error: { code: 'no_handover' } },
    });
    t.match(await ask(control, 'DELETE /v1/handover'), {
      status: 409,
      json: { error: { code: 'no_handover' } },
    });

    // One that is there, is given everything, and then hangs.
    const hanging = asFd(openDatagramSocket());
    t.equal(bindTo(hanging, join(folder, 'hanging')), 0);
    t.match(await ask(control, 'POST /v1/handover', { socket: join(folder, 'hanging') }), { status: 200 });
    t.equal(await lastMessage(hanging), 'HANDOVER=1\nFRONTENDS=1');
    const served = vm.ring.deviceUsedIndex;
    vm.ring.request(2, DATA_BASE, 64);
    vm.frontend.kickRing();
    await setTimeout(200);
    t.equal(vm.ring.deviceUsedIndex, served, 'nothing is served while another process may');
    t.ok(await eventually(() => vm.ring.deviceUsedIndex !== served, PATIENCE_MS), 'after 5 s');
    t.equal(vm.frontend.waitUsed(vm.ring, 1)[0]?.length, 64);
    closeFd(hanging);
    for (let i = 0; i < 10; i++) t.equal(vm.request(64).length, 64);
    t.match(await ask(control, 'PATCH /v1/devices/rng0', { weight: 3 }), { status: 200 });
    t.equal(await pidBehind(control), old.child.pid);
    vm.close();
  },
);

await t.test('a new process that has little time to read is passed everything', async (t) => {
  // More than waits in a socket: some 20 messages, where 10 do.
  const { control, folder } = await startOld(t, [], 10);
  const socket = asFd(openDatagramSocket());
  t.equal(bindTo(socket, join(folder, 'slow')), 0);
  t.match(await ask(control, 'POST /v1/handover', { socket: join(folder, 'slow') }), { status: 200 });
  t.equal(await lastMessage(socket, 20), 'HANDOVER=1\nFRONTENDS=0');
  t.match(await ask(control, 'DELETE /v1/handover'), { status: 200 }, 'and the old one waits for its word');
  closeFd(socket);
});

await t.test(
  'what cannot be: no socket there, a service manager, no daemon, an inherited socket',
  async (t) => {
    const { control, folder, path } = await startOld(t);
    const nowhere = await ask(control, 'POST /v1/handover', { socket: join(folder, 'none') });
    t.match(nowhere, { status: 400, json: { error: { code: 'handover_socket' } } });
    const vm = VirtualMachine.start(path);
    t.equal(vm.request(64).length, 64);
    vm.close();
    const none = runToEnd([`--socket-path=${path}`, `--takeover=${join(folder, 'none')}`], {
      NODE_OPTIONS: '',
    });
    t.equal(none.status, EX_TEMPFAIL);
    t.match(
      none.stderr,
      /vhost-rngd: not taken over: expected a control socket at .*none, got nothing there/,
    );
    const noFolder = runToEnd([`--socket-path=${path}`, `--takeover=${control}`], {
      TMPDIR: '/proc',
      NODE_OPTIONS: '',
    });
    t.equal(noFolder.status, EX_TEMPFAIL);
    t.match(noFolder.stderr, /making a folder in .proc failed: ENOENT; set TMPDIR/);
    const inherited = runToEnd(['--fd=3', `--takeover=${control}`], { NODE_OPTIONS: '' });
    t.equal(inherited.status, 64);
    t.match(inherited.stderr, /expected devices by their paths with --takeover, got --fd/);

    const notify = asFd(openDatagramSocket());
    t.equal(bindTo(notify, join(folder, 'notify')), 0);
    t.ok(NotifySocket.open(join(folder, 'notify')));
    const other = join(folder, 'other-control.sock');
    startProcess(t, [`--socket-path=${join(folder, 'other.sock')}`, `--control-socket=${other}`], {
      stdio: 'ignore',
      env: { NODE_OPTIONS: '', NOTIFY_SOCKET: join(folder, 'notify') },
    });
    await waitUntilLive(other);
    const kept = await ask(other, 'POST /v1/handover', { socket: join(folder, 'notify') });
    t.match(kept, { status: 409, json: { error: { code: 'handover_by_manager' } } });
    closeFd(notify);
  },
);
