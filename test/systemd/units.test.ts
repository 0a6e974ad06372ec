// The files of systemd/ without a running systemd: exposure of the sandbox, what management software looks for, and that
// README.md explains every line of the sandbox.
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { MAX_SEATS } from '../../daemon/ledger.js';
import { MAX_SOCKET_PATH_BYTES } from '../../shared-memory/unix-socket.js';
import { findProgram, runProgram } from '../support/guest/program.js';
import { temporaryFolder } from '../support/rng-daemon.js';
import { runToEnd } from '../support/started-process.js';
import { faultsOf, unitPath } from '../support/systemd/installed.js';

/** As systemd-analyze has it, from 0 to 10. The goal of the project. */
const MOST_EXPOSURE = 1;
const SERVICES = ['vhost-rngd.service', 'vhost-rngd@.service'];
const SOCKETS = [
  'vhost-rngd.socket',
  'vhost-rngd-device@.socket',
  'vhost-rngd@.socket',
  'vhost-rngd-control@.socket',
];
/** Memory regions of a guest, with --mem-slots. */
const MAX_REGIONS = 32;
/** What needs no explanation. */
const WITHOUT_REASON = new Set(['Description', 'Documentation', 'WantedBy', 'Also']);
/** Types of back-ends. Source: QEMU 10.2, docs/interop/vhost-user.json, VHostUserBackendType. */
const BACKEND_TYPES = [
  '9p',
  'balloon',
  'block',
  'caif',
  'console',
  'crypto',
  'gpu',
  'input',
  'net',
  'rng',
  'rpmsg',
].concat(['rproc-serial', 'scsi', 'vsock', 'fs']);

function textOf(name: string): string {
  return readFileSync(unitPath(name), 'utf8');
}

/** Assignments of a unit file in order: `Key=value`. */
function assignmentsOf(name: string): (readonly [string, string])[] {
  return textOf(name)
    .split('\n')
    .filter((line) => /^[A-Z]\w*=/.test(line))
    .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const);
}

function skipWithoutAnalyze(t: Test): boolean {
  if (findProgram('systemd-analyze') !== undefined) return false;
  if (process.env['VHOST_RNGD_REQUIRE_E2E'] === '1') t.fail('systemd-analyze is missing');
  else t.plan(0, 'systemd-analyze is missing');
  return true;
}

for (const service of SERVICES) {
  await t.test(`exposure of ${service} is at most ${MOST_EXPOSURE}`, async (t) => {
    if (skipWithoutAnalyze(t)) return;
    const args = ['security', '--offline=true', '--no-pager', unitPath(service)];
    const { stdout, stderr } = await runProgram('systemd-analyze', args);
    const exposure = /Overall exposure level for \S+: ([\d.]+)/.exec(stdout.toString())?.[1];
    t.ok(Number(exposure) <= MOST_EXPOSURE, exposure ?? stderr);
  });
}

await t.test('README.md explains every setting of the services', (t) => {
  const readme = readFileSync(unitPath('README.md'), 'utf8');
  const explained = new Set([...readme.matchAll(/`([A-Z]\w+)=/g)].map(([, name]) => name));
  for (const service of SERVICES)
    for (const [name] of assignmentsOf(service))
      if (!WITHOUT_REASON.has(name)) t.ok(explained.has(name), `${service}: ${name}=`);
  t.end();
});

await t.test('both services have the same sandbox', (t) => {
  const [main = [], instance] = SERVICES.map((service) => {
    const [sandbox = ''] = textOf(service).split('# The sandbox').slice(1);
    return sandbox
      .replace(/\[Install\][^]*/, '')
      .split('\n')
      .filter((line) => /^[A-Z]/.test(line));
  });
  t.ok(main.length > 25, `${main.length} lines`);
  t.strictSame(main, instance);
  t.end();
});

await t.test('the description for QEMU and libvirt has what vhost-user.json asks for', (t) => {
  const description = JSON.parse(textOf('50-vhost-rngd.json')) as Record<string, unknown>;
  t.strictSame(
    Object.keys(description).sort(),
    ['binary', 'description', 'type'],
    'VHostUserBackend, no tags',
  );
  t.ok(BACKEND_TYPES.includes(String(description['type'])), `type ${String(description['type'])}`);
  const { stdout, status } = runToEnd(['--print-capabilities']);
  t.equal(status, 0);
  t.match(JSON.parse(stdout), { type: description['type'] }, 'as the program says itself');
  const started = assignmentsOf('vhost-rngd.service').find(([name]) => name === 'ExecStart')?.[1];
  t.ok(started?.startsWith(`${String(description['binary'])} `), 'the program of the service');
  t.end();
});

await t.test('the store of one guest’s process has room for as many guests as it may have', (t) => {
  const figure = (key: string): number =>
    Number(assignmentsOf('vhost-rngd@.service').find(([name]) => name === key)?.[1]);
  // ARCHITECTURE.md, "The next process": connection, kick, call, err and record; and one for the device's ledger.
  t.ok(figure('FileDescriptorStoreMax') >= MAX_SEATS * (5 + MAX_REGIONS) + 1);
  t.ok(figure('LimitNOFILE') >= MAX_SEATS * (7 + MAX_REGIONS) + 256, 'two more, and what node has open');
  t.end();
});

await t.test('the configuration of the package is one', (t) => {
  const { status, stderr } = runToEnd([`--config=${unitPath('config.toml')}`, '--check-config']);
  t.equal(status, 0, stderr);
  t.end();
});

await t.test('socket units: paths that fit, and a descriptor name that is not taken for a kept one', (t) => {
  for (const unit of SOCKETS) {
    const settings = assignmentsOf(unit);
    const paths = settings.filter(([name]) => name === 'ListenStream').map(([, path]) => path);
    t.ok(paths.length > 0 && paths.every((path) => path.length <= MAX_SOCKET_PATH_BYTES), paths.join());
    const name = settings.find(([name]) => name === 'FileDescriptorName')?.[1];
    t.notOk(name?.startsWith('vhost-rngd.') ?? true, `${unit}: ${name ?? 'no name'}`);
    t.ok(
      settings.some(([name, value]) => name === 'RemoveOnStop' && value === 'yes'),
      `${unit}: no file is left behind`,
    );
  }
  t.end();
});

await t.test('systemd understands every line of the units', async (t) => {
  if (skipWithoutAnalyze(t)) return;
  const root = temporaryFolder(t);
  const folder = join(root, 'etc/systemd/system');
  mkdirSync(folder, { recursive: true });
  for (const program of ['usr/bin/vhost-rngd', 'bin/sh']) {
    mkdirSync(dirname(join(root, program)), { recursive: true });
    writeFileSync(join(root, program), '', { mode: 0o755 });
  }
  for (const name of readdirSync(unitPath('')))
    if (/\.(service|socket)$/.test(name)) cpSync(unitPath(name), join(folder, name));
  for (const name of [
    'vhost-rngd.service',
    'vhost-rngd.socket',
    'vhost-rngd-device@web1.socket',
    'vhost-rngd@web1.service',
    'vhost-rngd@web1.socket',
    'vhost-rngd-control@web1.socket',
  ]) {
    const args = ['verify', '--man=no', '--recursive-errors=no', `--root=${root}`, join(folder, name)];
    const { stderr } = await runProgram('systemd-analyze', args);
    const ours = faultsOf(stderr).filter((line) => /vhost-rngd[^ ]*:\d+:/.test(line));
    t.same(ours, [], name);
  }
});
