// A container in which this checkout is installed, as the package does it, for tests of the units; or the reason why there is none.
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { temporaryFolder } from '../rng-daemon.js';
import { type Bind, SystemdContainer } from './container.js';
import { BOOKWORM, type Release, systemdRoot, whyNoContainer } from './root.js';

/** Set to 1, a host that cannot start containers fails the tests; otherwise it skips them. */
const REQUIRE_VARIABLE = 'VHOST_RNGD_REQUIRE_E2E';
const FILE_TIMEOUT_MS = 600_000;

const CHECKOUT = fileURLToPath(new URL('../../../../', import.meta.url));
const UNITS = [
  'vhost-rngd.service',
  'vhost-rngd.socket',
  'vhost-rngd-device@.socket',
  'vhost-rngd@.service',
  'vhost-rngd@.socket',
  'vhost-rngd-control@.socket',
];
/** Where else files of systemd/ go. */
const FILES: readonly Bind[] = [
  ['config.toml', '/usr/share/vhost-rngd/config.toml'],
  ['vhost-rngd.sysusers', '/usr/lib/sysusers.d/vhost-rngd.conf'],
  ['vhost-rngd.tmpfiles', '/usr/lib/tmpfiles.d/vhost-rngd.conf'],
  ['50-vhost-rngd.json', '/usr/share/qemu/vhost-user/50-vhost-rngd.json'],
];
/** The service's configuration. */
export const CONFIG = '/etc/vhost-rngd/config.toml';
const LIBRARY = '/usr/lib/vhost-rngd';
const PROGRAMS: Readonly<Record<string, string>> = { 'vhost-rngd': 'main.cjs', 'vhost-rngctl': 'ctl.cjs' };

/** What systemd-analyze says of the units, without the one setting that systemd ignores before 254, as it is meant to. */
export function faultsOf(messages: string): string[] {
  return messages
    .split('\n')
    .filter((line) => line !== '' && !/Unknown key (name )?'FileDescriptorStorePreserve'/.test(line));
}

/** A file of the folder systemd/. */
export function unitPath(name: string): string {
  return join(CHECKOUT, 'systemd', name);
}

/** What must be ended in the end. */
type Scope = Pick<Test, 'teardown'>;

/** Boots a container with the service installed, for the test; undefined where none can be booted, which is said loudly, or fails. */
export async function installedContainer(
  t: Test,
  binds: readonly Bind[] = [],
  release = BOOKWORM,
): Promise<SystemdContainer | undefined> {
  return orSkip(t, () => bootInstalled(t, binds, release));
}

/** Boots a Debian release with `binds` in it and nothing else of ours; undefined as {@link installedContainer}. */
export async function bootedContainer(
  t: Test,
  release: Release,
  binds: readonly Bind[],
): Promise<SystemdContainer | undefined> {
  return orSkip(t, () => boot(t, release, binds));
}

/** Boots a container with the service installed; rejects with the fix where it cannot. */
export async function bootInstalled(
  scope: Scope,
  binds: readonly Bind[] = [],
  release = BOOKWORM,
): Promise<SystemdContainer> {
  const container = await boot(scope, release, [...installedFiles(scope), ...binds]);
  await container.outputOf('systemd-sysusers');
  await container.outputOf('systemd-tmpfiles', '--create', 'vhost-rngd.conf');
  // A copy, since it is the user's to change.
  await container.outputOf('install', '-D', '-m', '0644', '/usr/share/vhost-rngd/config.toml', CONFIG);
  return container;
}

async function boot(scope: Scope, release: Release, binds: readonly Bind[]): Promise<SystemdContainer> {
  const reason = whyNoContainer();
  if (reason !== undefined) throw new Error(reason);
  const container = await SystemdContainer.boot(await systemdRoot(release), binds);
  scope.teardown(() => container.kill());
  return container;
}

async function orSkip(
  t: Test,
  booting: () => Promise<SystemdContainer>,
): Promise<SystemdContainer | undefined> {
  t.setTimeout(FILE_TIMEOUT_MS);
  try {
    return await booting();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    if (process.env[REQUIRE_VARIABLE] === '1') {
      t.fail(`no container with systemd, which ${REQUIRE_VARIABLE}=1 requires: ${reason}`);
    } else {
      process.stderr.write(`\n*** TEST WITH SYSTEMD SKIPPED: ${reason}\n\n`);
      t.plan(0, reason);
    }
    return undefined;
  }
}

function installedFiles(scope: Scope): Bind[] {
  const programs = join(temporaryFolder(scope), 'bin');
  mkdirSync(programs);
  const wrappers = Object.entries(PROGRAMS).map(([name, file]): Bind => {
    const wrapper = join(programs, name);
    writeFileSync(wrapper, `#!/bin/sh\nexec /usr/bin/node ${LIBRARY}/dist/daemon/${file} "$@"\n`);
    chmodSync(wrapper, 0o755);
    return [wrapper, `/usr/bin/${name}`];
  });
  return [
    [process.execPath, '/usr/bin/node'],
    ...['dist', 'node_modules', 'package.json'].map((name): Bind => [
      join(CHECKOUT, name),
      `${LIBRARY}/${name}`,
    ]),
    ...UNITS.map((name): Bind => [unitPath(name), `/usr/lib/systemd/system/${name}`]),
    ...FILES.map(([name, inside]): Bind => [unitPath(name), inside]),
    ...wrappers,
  ];
}
