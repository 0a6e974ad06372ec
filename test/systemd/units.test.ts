// The unit files: systemd understands them, the sandbox is as tight as README says, and QEMU's description is what QEMU asks for.
//
// Leaves out: the service in a running systemd.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { temporaryFolder } from '../support/rng-daemon.js';

const UNITS = fileURLToPath(new URL('../../../systemd/', import.meta.url));
/** Tenths, as systemd-analyze counts. */
const MOST_EXPOSED = 10;

function analyze(args: readonly string[]) {
  const run = spawnSync('systemd-analyze', [...args], { encoding: 'utf8' });
  if (run.error !== undefined) throw new Error('systemd-analyze is missing: apt-get install systemd');
  return run;
}

t.test('the exposure of the service is at most 1.0', (t) => {
  const run = analyze([
    'security',
    '--offline=true',
    `--threshold=${MOST_EXPOSED}`,
    join(UNITS, 'vhost-rngd.service'),
  ]);
  t.match(run.stdout, /Overall exposure level for vhost-rngd.service: 0\.\d/);
  t.equal(
    run.status,
    0,
    run.stdout
      .split('\n')
      .filter((line) => line.startsWith('✗'))
      .join('\n'),
  );
  t.end();
});

t.test('systemd understands every line of the units', (t) => {
  const root = temporaryFolder(t);
  const folder = join(root, 'etc/systemd/system');
  mkdirSync(folder, { recursive: true });
  mkdirSync(join(root, 'usr/bin'), { recursive: true });
  for (const program of ['vhost-rngd', '../../bin/kill'])
    writeFileSync(join(root, 'usr/bin', program.replace(/.*\//, '')), '', { mode: 0o755 });
  for (const name of readdirSync(UNITS))
    if (/\.(service|socket)$/.test(name)) cpSync(join(UNITS, name), join(folder, name));
  for (const name of ['vhost-rngd.service', 'vhost-rngd.socket', 'vhost-rngd-device@web1.socket']) {
    const run = analyze([
      'verify',
      '--man=no',
      '--recursive-errors=no',
      `--root=${root}`,
      join(folder, name),
    ]);
    const ours = run.stderr.split('\n').filter((line) => /vhost-rngd[^ ]*:\d+:/.test(line));
    t.same(ours, [], name);
  }
  t.end();
});

t.test("QEMU's description of the back-end has what its schema asks for, and the daemon's own type", (t) => {
  const text = readFileSync(join(UNITS, '50-vhost-rngd.json'), 'utf8');
  const description: unknown = JSON.parse(text);
  t.match(description, { description: String, type: 'rng', binary: /^\// });
  t.end();
});
