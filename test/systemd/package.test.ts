// The Debian package in a clean Debian 13 with its own node and systemd: installed, enabled, a real guest reads, the package is upgraded under it,
// the guest reads on; and when the package is purged, nothing of it is left.
//
// Left out: other architectures, and derivatives of Debian.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { endToEnd } from '../support/guest/end-to-end.js';
import { findProgram } from '../support/guest/program.js';
import { ReadingGuest } from '../support/reading-guest.js';
import { temporaryFolder } from '../support/rng-daemon.js';
import { waitUntilLive } from '../support/started-process.js';
import type { SystemdContainer } from '../support/systemd/container.js';
import { bootedContainer, CONFIG } from '../support/systemd/installed.js';
import { TRIXIE } from '../support/systemd/root.js';
import { VirtualMachine } from '../support/virtual-machine.js';

const CHECKOUT = fileURLToPath(new URL('../../../', import.meta.url));
const SERVICE = 'vhost-rngd.service';
const RNG_SOCKET = '/run/vhost-rngd/rng.sock';
const VERSIONS = ['0.0.1', '0.0.2'] as const;
const READ_BYTES = 1 << 20;
const BLOCK_BYTES = 16;
/** Folders whose files belong to others: caches, logs, and what the kernel makes up. */
const NOT_OURS = [
  '/proc',
  '/sys',
  '/dev',
  '/run',
  '/tmp',
  '/var/log',
  '/var/cache',
  '/var/lib/dpkg',
  '/var/lib/systemd',
];

const [oldPackage = '', newPackage = ''] = VERSIONS.map(build);

/** Builds the package, as `npm run package` does, under a version. */
function build(version: string): string {
  const script = 'systemd/debian/build';
  const { status, stdout, stderr } = spawnSync(script, [version], { cwd: CHECKOUT, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${script} exited with ${status}:\n${stdout}${stderr}`);
  return `${CHECKOUT}${stdout.trim()}`;
}

await t.test('lintian finds nothing in it', (t) => {
  if (findProgram('lintian') === undefined) {
    process.stderr.write('\n*** TEST OF THE PACKAGE BY LINTIAN SKIPPED: apt-get install lintian\n\n');
    t.plan(0, 'no lintian');
    return;
  }
  const { status, stdout } = spawnSync('lintian', ['--fail-on', 'error,warning', oldPackage], {
    encoding: 'utf8',
  });
  t.equal(status, 0, { stdout });
  t.end();
});

await t.test('in a clean Debian', (t) =>
  endToEnd(t, async (scene) => {
    const packages = [oldPackage, newPackage];
    const container = await bootedContainer(
      t,
      TRIXIE,
      packages.map((file) => [file, `/mnt/${basename(file)}`]),
    );
    if (container === undefined) return;
    const before = await filesOf(container);

    await t.test('it installs in a clean Debian, and starts nothing', async (t) => {
      await install(container, oldPackage);
      t.equal(await container.outputOf('vhost-rngd', '--version'), `${VERSIONS[0]}\n`);
      t.equal(await container.property(SERVICE, 'ActiveState'), 'inactive');
      t.equal(await container.property('vhost-rngd.socket', 'UnitFileState'), 'disabled');
      const { stderr } = await container.run(
        'systemd-analyze',
        'verify',
        '--man=no',
        SERVICE,
        'vhost-rngd@web1.service',
      );
      t.equal(stderr, '', 'nothing is wrong with the units');
      t.equal(await container.outputOf('dpkg', '--verify', 'vhost-rngd'), '');
    });

    await container.outputOf('systemctl', 'enable', '--now', 'vhost-rngd.socket');
    const guest = await scene.bootGuest(container.path(RNG_SOCKET));

    await t.test('a guest reads on while the package is upgraded under it', async (t) => {
      t.equal((await guest.readHwrng(4096)).length, 4096);
      const reading = guest.readHwrng(READ_BYTES);
      const pid = await container.property(SERVICE, 'MainPID');
      await install(container, newPackage);
      t.not(await container.property(SERVICE, 'MainPID'), pid, 'another process serves');
      const bytes = await reading;
      t.equal(bytes.length, READ_BYTES);
      const blocks = new Set<string>();
      for (let at = 0; at < bytes.length; at += BLOCK_BYTES)
        blocks.add(bytes.toString('latin1', at, at + BLOCK_BYTES));
      t.equal(blocks.size, READ_BYTES / BLOCK_BYTES, 'no 16 bytes twice');
      await container.untilProperty(SERVICE, 'StatusText', (text) => /\b1 guests? .*healthy/.test(text));
      const status = JSON.parse(await container.outputOf('vhost-rngctl', 'status', '--json')) as Status;
      t.match(
        status,
        { version: VERSIONS[1], devices: [{ name: 'rng', connections: 1 }] },
        'over the same connection',
      );
      t.equal(await container.timesInJournal(SERVICE, /a front-end goes on in this process/), 1);
    });

    await t.test(
      'an upgrade that does not like the configuration says so, and leaves the service alone',
      async (t) => {
        const text = readFileSync(container.path(CONFIG), 'utf8');
        await container.write(CONFIG, `max-bytes = "much"\n${text}`);
        const pid = await container.property(SERVICE, 'MainPID');
        const messages = await install(container, newPackage);
        t.match(messages, /config\.toml:1:.*max-bytes/);
        t.match(messages, /correct the file, then: systemctl restart vhost-rngd/);
        t.equal(await container.property(SERVICE, 'MainPID'), pid, 'the same process serves');
        t.equal((await guest.readHwrng(4096)).length, 4096);
        await container.write(CONFIG, text);
      },
    );

    await t.test('the guest reads on over a crash and a restart', async (t) => {
      for (const command of ['kill --signal=KILL', 'restart']) {
        const pid = await container.property(SERVICE, 'MainPID');
        const reading = guest.readHwrng(READ_BYTES / 4);
        await container.outputOf('systemctl', ...command.split(' '), SERVICE);
        t.equal((await reading).length, READ_BYTES / 4, command);
        t.not(await container.property(SERVICE, 'MainPID'), pid);
      }
    });

    await t.test('a process for one guest goes on over an upgrade too', async (t) => {
      await container.outputOf('systemctl', 'enable', '--now', 'vhost-rngd@web1.socket');
      const single = new ReadingGuest(t, container.path('/run/vhost-rngd-vm/web1.sock'));
      await single.readTotal(4096);
      const pid = await container.property('vhost-rngd@web1.service', 'MainPID');
      await install(container, newPackage);
      t.not(await container.property('vhost-rngd@web1.service', 'MainPID'), pid);
      await single.readTotal(single.count + 4096);
      t.ok(single.vm.frontend.answers(), 'over the same connection');
    });

    await t.test(
      'a package that is removed stops its service, and one that is purged leaves nothing',
      async (t) => {
        await container.outputOf(
          'systemctl',
          'enable',
          'vhost-rngd-device@later.socket',
          'vhost-rngd@later.socket',
        );
        await container.write('/etc/vhost-rngd/failed.env', 'VHOST_RNGD_OPTIONS=--nonsense\n');
        t.not((await container.run('systemctl', 'start', 'vhost-rngd@failed.service')).status, 0);
        await container.outputOf('dpkg', '--remove', 'vhost-rngd');
        t.equal(await container.property(SERVICE, 'ActiveState'), 'inactive');
        await container.outputOf('dpkg', '--purge', 'vhost-rngd');
        t.same(
          (await filesOf(container)).filter((file) => !before.includes(file)),
          [],
        );
        await nothingIsLeft(t, container);
      },
    );
  }),
);

await t.test('npm pack makes what npm install -g installs', async (t) => {
  const folder = temporaryFolder(t);
  // The scripts would build anew, what other tests are running.
  const packed = npm('pack', '--ignore-scripts', '--pack-destination', folder);
  const prefix = join(folder, 'prefix');
  npm('install', '--global', '--prefix', prefix, '--prefer-offline', join(folder, packed));
  const program = join(prefix, 'bin/vhost-rngd');
  const { version } = JSON.parse(readFileSync(join(CHECKOUT, 'package.json'), 'utf8')) as Status;
  for (const name of ['vhost-rngd', 'vhost-rngctl'])
    t.equal(spawnSync(join(prefix, 'bin', name), ['--version'], { encoding: 'utf8' }).stdout, `${version}\n`);
  t.ok(existsSync(join(prefix, 'share/man/man1/vhost-rngd.1')));
  const path = join(folder, 'rng.sock');
  const env = { ...process.env, NODE_OPTIONS: '' };
  const daemon = spawn(program, [`--socket-path=${path}`], { stdio: 'ignore', env });
  t.teardown(() => daemon.kill('SIGKILL'));
  await waitUntilLive(path);
  const vm = VirtualMachine.start(path);
  t.equal(vm.request(64).length, 64, 'it serves');
  vm.close();
});

/** Runs npm in the checkout; its last line. */
function npm(...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync('npm', args, { cwd: CHECKOUT, encoding: 'utf8' });
  if (status !== 0) throw new Error(`npm ${args.join(' ')} exited with ${status}:\n${stdout}${stderr}`);
  return stdout.trim().split('\n').at(-1) ?? '';
}

interface Status {
  readonly version: string;
  readonly devices: readonly { readonly name: string; readonly connections: number }[];
}

/** Installs a package over what is there; what that says. */
async function install(container: SystemdContainer, file: string): Promise<string> {
  const { status, stdout, stderr } = await container.run(
    'env',
    'DEBIAN_FRONTEND=noninteractive',
    'dpkg',
    '--install',
    `/mnt/${basename(file)}`,
  );
  if (status !== 0) throw new Error(`dpkg exited with ${status ?? 'a signal'}:\n${stdout}${stderr}`);
  return stdout + stderr;
}

async function nothingIsLeft(t: Test, container: SystemdContainer): Promise<void> {
  const look = async (...command: readonly [string, ...string[]]): Promise<string> =>
    (await container.run(...command)).stdout;
  t.equal(await look('getent', 'passwd', 'vhost-rngd'), '');
  t.equal(await look('getent', 'group', 'vhost-rngd'), '');
  t.equal(await look('systemctl', 'list-units', '--all', '--plain', '--no-legend', 'vhost-rngd*'), '');
  t.equal(await look('find', '/run', '-name', '*vhost-rngd*', '-not', '-path', '/run/log/*'), '');
}

/** Every file that a package may leave behind. */
async function filesOf(container: SystemdContainer): Promise<string[]> {
  const pruned = NOT_OURS.flatMap((folder) => ['-path', folder, '-prune', '-o']);
  const all = await container.outputOf('find', '/', ...pruned, '-print');
  return all.split('\n').filter((file) => !/^\/(etc\/(passwd|group|shadow|gshadow)-?|mnt\/.*)$/.test(file));
}
