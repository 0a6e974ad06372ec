// The root file system of a small Debian with systemd: made once by debootstrap, kept in the cache folder, never written again.
// Its mirror is the one that apt uses on this host.
import { mkdir, mkdtemp, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { findProgram, outputOf, runProgram } from '../guest/program.js';

/** A Debian release, and what is in its root. */
export interface Release {
  /** The folder's name in the cache. */
  readonly name: string;
  readonly suite: string;
  readonly packages: readonly string[];
}

const SYSTEMD = ['systemd', 'systemd-sysv', 'dbus'];
/** Debian 12, whose systemd (252) is the oldest that the units are made for. Its node is too old: the host's is put in. */
export const BOOKWORM: Release = { name: 'systemd-bookworm', suite: 'bookworm', packages: SYSTEMD };
/** Debian 13, with its own node (20) and systemd (257): the oldest release that the package is for. */
export const TRIXIE: Release = {
  name: 'systemd-trixie',
  suite: 'trixie',
  packages: [...SYSTEMD, 'nodejs'],
};
/** Downloading and unpacking take 40 s on an idle machine. */
const MAKE_TIMEOUT_MS = 600_000;

const TOOLS: readonly (readonly [string, string])[] = [
  ['debootstrap', 'debootstrap'],
  ['systemd-nspawn', 'systemd-container'],
  ['nsenter', 'util-linux'],
];

/** Why no container can be started here, with the fix; undefined when nothing is known to be in the way. */
export function whyNoContainer(): string | undefined {
  if (process.getuid?.() !== 0) return 'systemd-nspawn needs root';
  const missing = TOOLS.filter(([program]) => findProgram(program) === undefined);
  if (missing.length === 0) return undefined;
  return `type: apt-get install ${missing.map(([, debianPackage]) => debianPackage).join(' ')}`;
}

/** The root of a Debian release, from the cache or made now; throws with what debootstrap says when it cannot be made. */
export async function systemdRoot(release: Release): Promise<string> {
  const base = process.env['XDG_CACHE_HOME'];
  const cache = join(base === undefined || base === '' ? join(homedir(), '.cache') : base, 'vhost-rngd');
  const root = join(cache, release.name);
  if (await exists(root)) return root;
  await mkdir(cache, { recursive: true });
  const made = await mkdtemp(join(cache, 'making-'));
  try {
    await debootstrap(release, join(made, 'root'));
    // Whoever comes second finds the other one's, which is as good.
    await rename(join(made, 'root'), root).catch(async (error: unknown) => {
      if (!(await exists(root))) throw error;
    });
  } finally {
    await rm(made, { recursive: true, force: true });
  }
  return root;
}

async function debootstrap({ suite, packages }: Release, folder: string): Promise<void> {
  const proxy = await aptProxy();
  const { status, stdout, stderr } = await runProgram(
    'env',
    [
      ...(proxy === '' ? [] : [`http_proxy=${proxy}`]),
      'debootstrap',
      '--variant=minbase',
      `--include=${packages.join(',')}`,
      suite,
      folder,
      await debianMirror(),
    ],
    { timeoutMs: MAKE_TIMEOUT_MS },
  );
  if (status !== 0) throw new Error(`debootstrap failed:\n${(stdout.toString() + stderr).slice(-2000)}`);
}

/** Where apt gets Debian's main archive from. */
async function debianMirror(): Promise<string> {
  const sites = (
    await outputOf('apt-get', [
      'indextargets',
      '--format',
      '$(SITE) $(SUITE)',
      'Created-By: Packages',
      'Origin: Debian',
      'Component: main',
    ])
  ).toString();
  const site = sites.split('\n').find((line) => line !== '' && !/security|updates|backports/.test(line));
  if (site === undefined)
    throw new Error('expected a mirror of Debian in apt-get indextargets: type apt-get update');
  return site.split(' ')[0] ?? '';
}

async function aptProxy(): Promise<string> {
  const line = await outputOf('apt-config', ['shell', 'PROXY', 'Acquire::http::Proxy']);
  return /^PROXY='(.*)'$/m.exec(line.toString())?.[1] ?? '';
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
