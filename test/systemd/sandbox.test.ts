// What the sandbox of both services denies, and what it must not: a program that tries things runs in place of the daemon, under a
// real systemd. Leaves out: memory and tasks, whose controllers a container on a host with the old cgroups does not have.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { temporaryFolder } from '../support/rng-daemon.js';
import type { SystemdContainer } from '../support/systemd/container.js';
import { installedContainer, unitPath } from '../support/systemd/installed.js';
import { type Finding, PROBE_MARK } from '../support/systemd/sandbox-probe.js';

const PROBE = '/usr/lib/vhost-rngd/dist/test/support/systemd/sandbox-probe.js';
/** Major and minor numbers. Source: Linux, admin-guide/devices.txt. */
const FUSE_DEVICE = ['10', '229'] as const;
const HWRNG_DEVICE = ['10', '183'] as const;

const SERVER = 'require("net").createServer((socket) => socket.end()).listen(7878, "0.0.0.0")';
/** Tries for 5 s: the server may not listen yet. What the filter drops gets no answer. */
const CLIENT = [
  'setTimeout(() => process.exit(1), 5000);',
  'const dial = () => require("net").connect(7878, process.argv[1], () => process.exit(0))',
  '.on("error", () => setTimeout(dial, 50)); dial();',
].join('');

/** Both may be used by anyone, as far as the files' modes go. */
const container = await installedContainer(t, [
  [deviceNode(t, HWRNG_DEVICE), '/dev/hwrng'],
  [deviceNode(t, FUSE_DEVICE), '/dev/rngd-other'],
]);
if (container !== undefined) await run(container);

function deviceNode(t: Test, device: readonly [string, string]): string {
  const node = join(temporaryFolder(t), 'node');
  execFileSync('mknod', ['--mode=666', node, 'c', ...device]);
  return node;
}

async function run(container: SystemdContainer): Promise<void> {
  for (const [unit, folder] of [
    ['vhost-rngd.service', '/run/vhost-rngd'],
    // It makes no socket itself.
    ['vhost-rngd@web1.service', '/tmp'],
  ] as const)
    await t.test(unit, async (t) => {
      const findings = await probe(container, unit, folder);
      const outcome = (what: string): string =>
        findings.find((found) => found.what === what)?.outcome ?? 'not tried';
      for (const { what, outcome, allowed } of findings)
        t.equal(outcome === 'done', allowed, `${what}: ${outcome}`);
      t.ok(findings.length >= 25, `${findings.length} things tried`);
      t.equal(outcome('a TCP socket'), 'EAFNOSUPPORT', 'denied by the unit, not by chance');
      t.equal(outcome('another device'), 'EPERM', 'denied by the unit, not by chance');
      t.equal(outcome('write to /dev/hwrng'), 'EPERM', 'denied by the unit, not by chance');
    });

  await t.test('egd-over-tcp.conf opens the network to its address alone', async (t) => {
    const settings = readFileSync(unitPath('egd-over-tcp.conf'), 'utf8').split('\n');
    const address = settings.find((line) => line.startsWith('IPAddressAllow='));
    t.equal(address, 'IPAddressAllow=192.0.2.1', 'an address that is nobody’s');
    await container.outputOf('systemd-run', '--unit=server', '/usr/bin/node', '-e', SERVER);
    for (const [host, works] of [
      ['127.0.0.1', true],
      ['127.0.0.2', false],
    ] as const) {
      await container.dropIn('vhost-rngd.service', [
        ...settings.filter((line) => /^[A-Z]/.test(line) && line !== address),
        'IPAddressAllow=127.0.0.1',
        'Type=oneshot',
        'Restart=no',
        'ExecStart=',
        `ExecStart=/usr/bin/node -e '${CLIENT}' ${host}`,
      ]);
      const { status } = await container.run('systemctl', 'start', 'vhost-rngd.service');
      t.equal(status === 0, works, `${host}\n${works ? await container.journal('vhost-rngd.service') : ''}`);
    }
  });
}

/** Runs the probe in place of a unit's daemon, and gives what it found. */
async function probe(container: SystemdContainer, unit: string, folder: string): Promise<Finding[]> {
  await container.outputOf('mkdir', '-p', '/home/someone');
  await container.write('/home/someone/secret', 'secret');
  await container.write('/root/secret', 'secret');
  await container.dropIn(unit, [
    'Type=oneshot',
    'Restart=no',
    'ExecStart=',
    `ExecStart=/usr/bin/node ${PROBE} ${folder}`,
  ]);
  await container.outputOf('systemctl', 'start', unit);
  const journal = await container.outputOf('journalctl', '--output=cat', `--unit=${unit}`);
  const line = journal.split('\n').find((text) => text.startsWith(PROBE_MARK));
  if (line === undefined) throw new Error(`expected what the probe found, got:\n${journal}`);
  return JSON.parse(line.slice(PROBE_MARK.length)) as Finding[];
}
