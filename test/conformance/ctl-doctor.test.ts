// `vhost-rngctl doctor` on this host: against a daemon that is well, one that was killed, one that hangs, configurations and devices
// that are not in order. Issue 4, point 5.
//
// Leaves out: faults that this host does not have (test/daemon/ctl/doctor-checks).
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import * as v from 'valibot';
import { makeBlockingDevice } from '../support/blocking-device.js';
import { type CtlOptions, type CtlRun, runCtl } from '../support/ctl-run.js';
import { makeFifo } from '../support/fifo.js';
import { startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';

/** Three calls that are not waited for, and the start of node on a machine that has other things to do. */
const LONGEST_S = 15;
const NOBODY = 65_534;

const Report = v.object({
  checks: v.array(
    v.strictObject({
      name: v.string(),
      verdict: v.picklist(['ok', 'note', 'problem']),
      found: v.string(),
      fix: v.nullable(v.string()),
    }),
  ),
});
type Check = v.InferOutput<typeof Report>['checks'][number];

interface Examined extends CtlRun {
  readonly check: (name: string) => Check | undefined;
}

async function doctor(
  t: Test,
  control: string,
  args: readonly string[] = [],
  options: CtlOptions = {},
): Promise<Examined> {
  const run = await runCtl([`--control-socket=${control}`, '--json', 'doctor', ...args], options);
  const { checks } = v.parse(Report, JSON.parse(run.stdout));
  t.equal(
    run.status,
    checks.some(({ verdict }) => verdict === 'problem') ? 1 : 0,
    'the status tells whether there is a problem',
  );
  t.ok(run.seconds < LONGEST_S, `${run.seconds.toFixed(1)} s`);
  return { ...run, check: (name) => checks.find((check) => check.name === name) };
}

async function start(
  t: Test,
): Promise<{ control: string; folder: string; path: string; kill: () => Promise<void>; pid: number }> {
  const control = join(temporaryFolder(t), 'control.sock');
  const { daemon, folder, path } = await startRngDaemon(t, { args: [`--control-socket=${control}`] });
  return { control, folder, path, kill: () => daemon.kill(), pid: daemon.pid };
}

await t.test('a daemon that is well', async (t) => {
  const { control, folder, pid } = await start(t);
  const { check, status, stdout } = await doctor(t, control);
  t.match(check('daemon'), { verdict: 'ok', found: new RegExp(`pid ${pid}: 0 of 1 devices have a guest`) });
  t.match(check('health'), { verdict: 'ok' });
  t.match(check('control socket'), { verdict: 'ok', found: /mode 0660/ });
  t.match(check(`folder ${folder}`), { found: /mode 0700/ });
  t.match(check('old sockets'), { verdict: 'ok' });
  t.match(check('locked memory'), { found: /limit of the daemon/ });
  t.match(check('/dev/random'), { verdict: 'ok' });
  t.match(check('node'), { verdict: 'ok' });
  t.match(check('guest memory'), { verdict: 'ok' });
  t.equal(status, 0, stdout);
  const text = await runCtl([`--control-socket=${control}`, 'doctor']);
  t.match(text.stdout, /^ok +node: version/m);
  t.notOk(text.stdout.includes('\u001b'), 'no colours without a terminal');
});

await t.test('a daemon that was killed leaves sockets', async (t) => {
  const { control, path, kill } = await start(t);
  await kill();
  const config = join(temporaryFolder(t), 'config.toml');
  writeFileSync(config, `[[device]]\nname = "a"\nsocket-path = "${path}"\n`);
  const { check, status } = await doctor(t, control, ['--config', config]);
  t.equal(status, 1);
  t.match(check('control socket'), {
    verdict: 'problem',
    found: /a socket that nobody serves/,
    fix: /systemctl restart/,
  });
  const old = check('old sockets');
  t.equal(old?.verdict, 'note');
  for (const left of [path, control])
    t.match(old, { found: new RegExp(left), fix: new RegExp(`^sudo rm .*${left}`) });
});

await t.test('no daemon', async (t) => {
  const control = join(temporaryFolder(t), 'none.sock');
  const { check } = await doctor(t, control);
  t.match(check('control socket'), {
    verdict: 'problem',
    found: /got nothing there/,
    fix: /systemctl enable --now/,
  });
  t.match(check('locked memory'), { found: /limit of this shell/ });
});

await t.test('a daemon that hangs', async (t) => {
  const { control, pid } = await start(t);
  process.kill(pid, 'SIGSTOP');
  t.teardown(() => process.kill(pid, 'SIGCONT'));
  const { check } = await doctor(t, control);
  t.match(check('control socket'), { verdict: 'problem', found: /got none within 3 s/ });
});

await t.test('a source that has failed', async (t) => {
  const control = join(temporaryFolder(t), 'control.sock');
  const fifo = makeFifo(t);
  fifo.write(Buffer.alloc(4096));
  const { daemon } = await startRngDaemon(t, {
    args: [`--control-socket=${control}`, '--allow-test-sources', `--source=file:${fifo.path}`],
  });
  await daemon.waitForLog(/source_failed/, 15_000);
  const { check, status } = await doctor(t, control);
  t.equal(status, 1);
  t.match(check('health'), { verdict: 'problem', found: /no source is healthy/ });
});

await t.test(
  'another user: told which group to be in',
  { skip: process.getuid?.() !== 0 && 'needs root' },
  async (t) => {
    const { control, folder } = await start(t);
    for (const open of [join(control, '..'), folder]) chmodSync(open, 0o755);
    const { check, status } = await doctor(t, control, [], { uid: NOBODY, gid: NOBODY });
    t.equal(status, 1);
    t.match(check('control socket'), { verdict: 'problem', found: /may not use it/ });
    t.match(check('/dev/hwrng'), { verdict: 'note' }, 'nothing draws from it here');
  },
);

await t.test('configurations: read and checked as the daemon does', async (t) => {
  const folder = temporaryFolder(t);
  const control = join(folder, 'none.sock');
  const config = (text: string): string => {
    const path = join(folder, 'config.toml');
    writeFileSync(path, text);
    return path;
  };
  const device = `[[device]]\nname = "a"\nsocket-path = "${folder}/a.sock"\n`;
  const good = await doctor(t, control, ['--config', config(device)]);
  t.match(good.check('configuration'), { verdict: 'ok', found: /config\.toml is in order/ });
  t.match(good.check('source random:/dev/random'), { verdict: 'ok' });
  t.match(good.check(`folder ${folder}`), { found: /mode 0700/ });
  const bad = await doctor(t, control, ['--config', config(`${device}max-byte = 5\n`)]);
  t.match(bad.check('configuration'), {
    verdict: 'problem',
    found: /config\.toml:4: .*did you mean max-bytes/,
    fix: /--check-config/,
  });
  const lying = await doctor(t, control, [
    '--config',
    config(`sources = ["hwrng:${folder}/config.toml", "random"]\n${device}`),
  ]);
  t.match(lying.check(`source hwrng:${folder}/config.toml`), { verdict: 'problem', found: /a regular file/ });
  t.match(lying.check('source random:/dev/random'), { verdict: 'ok' }, 'each is looked at');
  const missing = await doctor(t, control, ['--config', join(folder, 'no.toml')]);
  t.match(missing.check('configuration'), { verdict: 'problem', found: /ENOENT/ });
  mkdirSync(join(folder, 'open'), { mode: 0o777 });
  chmodSync(join(folder, 'open'), 0o777);
  const open = await doctor(t, control, ['--config', config(device.replace('/a.sock', '/open/a.sock'))]);
  t.match(open.check(`folder ${folder}/open`), {
    verdict: 'problem',
    found: /anyone can replace/,
    fix: `sudo chmod o-w ${folder}/open`,
  });
});

await t.test('the state file that a configuration names: read as the daemon does', async (t) => {
  const folder = temporaryFolder(t);
  const config = join(folder, 'config.toml');
  const state = join(folder, 'state.json');
  writeFileSync(
    config,
    `state-file = "${state}"\n[[device]]\nname = "a"\nsocket-path = "${folder}/a.sock"\n`,
  );
  const look = async (text?: string): Promise<Check | undefined> => {
    if (text !== undefined) writeFileSync(state, text);
    const { check } = await doctor(t, join(folder, 'none.sock'), ['--config', config]);
    return check('state file');
  };
  t.match(await look(), { verdict: 'ok' }, 'none yet');
  t.match(await look('{"added":[],"removed":[],"changed":[]}'), { verdict: 'ok', found: /is in order/ });
  const fix = `sudo mv ${state} ${state}.broken && sudo systemctl restart vhost-rngd.service`;
  t.match(await look('{"added":[],"rem'), { verdict: 'problem', found: /state\.json: .*remove it/, fix });
  if (process.getuid?.() === 0) {
    for (const [path, mode] of [
      [folder, 0o755],
      [config, 0o644],
      [state, 0o600],
    ] as const)
      chmodSync(path, mode);
    const options = { uid: NOBODY, gid: NOBODY };
    const { check } = await doctor(t, join(folder, 'none.sock'), ['--config', config], options);
    t.match(check('state file'), {
      verdict: 'note',
      found: /not for nobody to read/,
      fix: 'sudo vhost-rngctl doctor',
    });
  }
  t.match(await look('{"added":[],"removed":[],"changed":[],"later":1}'), {
    verdict: 'problem',
    found: /later/,
    fix,
  });
});

await t.test('a driver that hangs in open(2) keeps nobody', async (t) => {
  const device = await makeBlockingDevice(t, 'open');
  if ('missing' in device) {
    t.pass('a device that hangs', { skip: `no FUSE file system can be mounted: ${device.missing}` });
    return;
  }
  const folder = temporaryFolder(t);
  const config = join(folder, 'config.toml');
  writeFileSync(
    config,
    `sources = ["hwrng:${device.path}"]\n[[device]]\nname = "a"\nsocket-path = "${folder}/a.sock"\n`,
  );
  const { check, signal } = await doctor(t, join(folder, 'none.sock'), ['--config', config]);
  t.equal(signal, null, 'it has ended by itself');
  t.match(check(`source hwrng:${device.path}`), { verdict: 'problem', found: /its driver hangs/ });
});
