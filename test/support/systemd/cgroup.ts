// A cgroup of its own for each container. Without it a container finds the groups of the one before, with the BPF programs of their
// DevicePolicy= still in force, because they outlive a container that is killed.
import { mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { waitUntil } from '../guest/deadline.js';

/** Of hosts that mount both kinds of cgroups. */
const OLD_TREE = '/sys/fs/cgroup/systemd';
const REMOVE_TIMEOUT_MS = 10_000;
let made = 0;

/** Makes one below that of this process; undefined on a host without cgroup2. */
export function makeCgroup(): string | undefined {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const mount = mounts.find((line) => line.includes(' - cgroup2 '))?.split(' ')[4];
  const own = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1];
  if (mount === undefined || own === undefined) return undefined;
  made++;
  const path = join(mount, own, `rngd-test-${process.pid}-${made}`);
  mkdirSync(path);
  return path;
}

/** Removes it with all below, once the last process in it has ended; also what nspawn has made like it in systemd's old tree. */
export async function removeCgroup(path: string): Promise<void> {
  await waitUntil(
    () => isRemoved(path) && isRemoved(join(OLD_TREE, basename(path))),
    REMOVE_TIMEOUT_MS,
    () => `expected an empty cgroup, got processes in ${path}`,
  );
}

function isRemoved(path: string): boolean {
  try {
    for (const entry of readdirSync(path, { withFileTypes: true }))
      if (entry.isDirectory() && !isRemoved(join(path, entry.name))) return false;
    rmdirSync(path);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EBUSY') return false;
    if (code === 'ENOENT' || code === 'ENOTDIR') return true;
    throw error;
  }
}
