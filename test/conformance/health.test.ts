// Health of the real daemon, as /healthz and the log tell it: rows F21, F36 and F38 of ARCHITECTURE.md, "Faults", and a data plane
// that hangs. The answer never waits for what it speaks of.
import { renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ask } from '../support/control-client.js';
import { goodBytes } from '../support/good-bytes.js';
import { type RngDaemon, startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { attachStrace, dataPlaneThread } from '../support/slow-thread.js';
import { DATA_BASE, VirtualMachine } from '../support/virtual-machine.js';

interface Controlled extends RngDaemon {
  readonly control: string;
}

async function startControlled(t: Test, args: readonly string[] = []): Promise<Controlled> {
  const control = join(temporaryFolder(t), 'control.sock');
  const started = await startRngDaemon(t, { args: [`--control-socket=${control}`, ...args] });
  return { ...started, control };
}

/** Waits until health is as wanted, and says what is wanted; gives its reasons. */
async function becomes(control: string, wanted: 'ok' | 'degraded' | 'failing', says = /^/): Promise<string> {
  for (const endMs = performance.now() + 15_000; ;) {
    const { json, status } = await ask(control, 'GET /healthz');
    const health = json as { status: string; reasons: string[] };
    if (health.status === wanted && says.test(health.reasons.join('; '))) {
      if ((status === 503) !== (wanted === 'failing')) throw new Error(`${wanted} with ${status}`);
      return health.reasons.join('; ');
    }
    if (performance.now() > endMs) throw new Error(`expected ${wanted}, got ${JSON.stringify(health)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

await t.test('ok, once a source has passed its start-up test; ready without it', async (t) => {
  const { control, daemon } = await startControlled(t);
  t.equal(await becomes(control, 'ok'), '');
  t.match(await ask(control, 'GET /readyz'), { status: 200, json: { ready: true } });
  t.ok(daemon.isRunning);
});

await t.test('F21: all sources gone: failing, and ready all the same', async (t) => {
  const file = join(temporaryFolder(t), 'source');
  writeFileSync(file, goodBytes(40_960));
  const { control, daemon, path } = await startControlled(t, [
    '--allow-test-sources',
    `--source=file:${file}`,
  ]);
  await becomes(control, 'ok');
  const vm = VirtualMachine.start(path);
  // What has passed its tests by then is still good: the source is seen to have ended when more is wanted.
  for (let i = 0; i < 6; i++) vm.request(4096);
  await becomes(control, 'failing', /no source is healthy.*source file:.* is failed: it has come to its end/);
  t.match(await ask(control, 'GET /readyz'), { status: 200 });
  await daemon.waitForLog(/health is failing: no source is healthy.*\[health\]/, 5000);
  t.match((await ask(control, 'GET /metrics')).text, /^vhost_rngd_health\{status="failing"\} 1$/m);
  vm.close();
});

await t.test('a preferred source that has failed while another serves: degraded', async (t) => {
  const file = join(temporaryFolder(t), 'source');
  writeFileSync(file, Buffer.alloc(65_536));
  const { control, path } = await startControlled(t, [
    '--allow-test-sources',
    `--source=file:${file}`,
    '--source=random',
  ]);
  await becomes(control, 'degraded', /^source file:.* is failed: /);
  const vm = VirtualMachine.start(path);
  t.equal(vm.request().length, 64);
  const { json } = await ask(control, 'GET /v1/sources');
  t.match(json, {
    sources: [{ state: 'failed' }, { spec: 'random:/dev/random', state: 'healthy', reason: null }],
  });
  t.match(await ask(control, 'POST /v1/sources/enable'), {
    status: 200,
    json: { enabled: [`file:${file}`] },
  });
  vm.close();
});

await t.test(
  'F38: the socket file is gone: degraded, the guest is served, and ok when it is back',
  async (t) => {
    const { control, path } = await startControlled(t);
    const vm = VirtualMachine.start(path);
    await becomes(control, 'ok');
    renameSync(path, `${path}.away`);
    await becomes(control, 'degraded', /the socket file of rng0 has gone/);
    t.equal(vm.request().length, 64);
    writeFileSync(path, '');
    await becomes(control, 'degraded');
    unlinkSync(path);
    renameSync(`${path}.away`, path);
    await becomes(control, 'ok');
    vm.close();
  },
);

await t.test('a data plane that hangs: failing, and every question is answered meanwhile', async (t) => {
  const { control, daemon, path } = await startControlled(t);
  await becomes(control, 'ok');
  const vm = VirtualMachine.start(path);
  vm.request();
  const tid = await dataPlaneThread(daemon.pid);
  if (tid === undefined) throw new Error('no data-plane thread was found');
  const strace = await attachStrace(t, tid, ['-e', 'inject=epoll_wait:delay_enter=60000000']);
  if (strace === undefined) throw new Error('this test needs strace');
  await becomes(control, 'failing', /the data plane does not answer/);
  for (const line of ['GET /readyz', 'GET /metrics', 'GET /v1/status', 'GET /v1/devices/rng0'])
    t.equal((await ask(control, line)).status, 200, line);
  const refused = await ask(control, 'PATCH /v1/devices/rng0', { paused: true });
  t.match(refused, { status: 503, json: { error: { code: 'data_plane_silent' } } });
  await strace.detach('SIGKILL');
  await becomes(control, 'ok');
  vm.ring.request(0, DATA_BASE, 64);
  vm.frontend.kickRing();
  vm.settle();
  t.equal(vm.ring.take(), undefined, 'the change is made as soon as it answers');
  vm.close();
});
