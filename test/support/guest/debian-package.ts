// Takes files out of a Debian package without installing it: apt-get download, dpkg-deb -x, keep what a guest needs.
// The kept files stay in a cache folder named after package and version, put there by one rename, so that a second run
// at the same time finds either nothing or all of it. Nothing here needs root, except a first `apt-get update`.
import { mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { findProgram, outputOf } from './program.js';

interface PackageRequest {
  /** Matches the package's name in the cache: any version that is there is good enough. */
  readonly cachedAs: RegExp;
  /** Finds the name to download, from apt's lists. */
  readonly resolveName: () => Promise<string>;
  /** Copies or moves what is wanted out of the unpacked package into `kept`. */
  readonly keep: (unpacked: string, kept: string) => Promise<void>;
}

interface PackageFiles {
  /** `NAME_VERSION`, as in the cache folder's name. */
  readonly id: string;
  readonly folder: string;
}

/** Where guests' parts are kept: `$XDG_CACHE_HOME/vhost-rngd/guest`, by default under `~/.cache`. */
function cacheFolder(): string {
  const base = process.env['XDG_CACHE_HOME'];
  const root = base === undefined || base === '' ? join(homedir(), '.cache') : base;
  return join(root, 'vhost-rngd', 'guest');
}

/** Gives the wanted files of a package, from the cache or freshly downloaded; throws with the fix when it cannot. */
export async function packageFiles(request: PackageRequest): Promise<PackageFiles> {
  const cache = cacheFolder();
  await mkdir(cache, { recursive: true });
  return (await newestCached(cache, request.cachedAs)) ?? (await download(cache, request));
}

async function newestCached(cache: string, pattern: RegExp): Promise<PackageFiles | undefined> {
  const names = (await readdir(cache)).filter((name) => pattern.test(name));
  const dated = await Promise.all(
    names.map(async (id) => ({ id, folder: join(cache, id), date: (await stat(join(cache, id))).mtimeMs })),
  );
  return dated.sort((a, b) => b.date - a.date)[0];
}

async function download(cache: string, request: PackageRequest): Promise<PackageFiles> {
  if (findProgram('apt-get') === undefined || findProgram('dpkg-deb') === undefined) {
    throw new Error(
      `expected apt-get and dpkg-deb, found none: the guest is made of Debian packages, run on Debian 12`,
    );
  }
  const work = await mkdtemp(join(cache, '.unpack-'));
  try {
    const file = await fetchOrUpdateAndFetch(work, request);
    const unpacked = join(work, 'unpacked');
    await outputOf('dpkg-deb', ['-x', join(work, file), unpacked]);
    const kept = join(work, 'kept');
    await mkdir(kept);
    await request.keep(unpacked, kept);
    const id = decodeURIComponent(file)
      .replace(/_[^_]+\.deb$/, '')
      .replaceAll(':', '-');
    const folder = join(cache, id);
    await renameUnlessThere(kept, folder);
    return { id, folder };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** apt's lists may be missing (a fresh container) or older than the mirror: one `apt-get update` cures both. */
async function fetchOrUpdateAndFetch(work: string, request: PackageRequest): Promise<string> {
  try {
    return await fetch(work, request);
  } catch {
    await updateLists();
    return await fetch(work, request);
  }
}

async function fetch(work: string, request: PackageRequest): Promise<string> {
  const name = await request.resolveName();
  // apt's unprivileged user cannot write into a private cache folder: without this root gets a warning.
  const sandbox = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];
  await outputOf('apt-get', [...sandbox, '-q', 'download', name], { cwd: work, timeoutMs: 300_000 });
  const file = (await readdir(work)).find((entry) => entry.endsWith('.deb'));
  if (file === undefined) throw new Error(`expected a .deb from apt-get download ${name}, got none`);
  return file;
}

async function updateLists(): Promise<void> {
  const isRoot = process.getuid?.() === 0;
  const [program, args] = isRoot ? ['apt-get', []] : ['sudo', ['-n', 'apt-get']];
  try {
    await outputOf(program, [...args, '-q', 'update'], { timeoutMs: 300_000 });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Error(
      `cannot download Debian packages; check the network, then type: sudo apt-get update\n${why}`,
      {
        cause,
      },
    );
  }
}

async function renameUnlessThere(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    // Another run put its own copy there first: that one is as good.
    const there = await stat(to).catch(() => undefined);
    if (there === undefined) throw error;
  }
}
