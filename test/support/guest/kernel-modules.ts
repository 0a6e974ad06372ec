// Picks the modules that make a guest's virtio-rng device work and puts them in the order in which insmod takes them.
// A module names what it depends on in its own .modinfo section (`depends=a,b`); modules.dep exists only after depmod.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Kernel } from './kernel.js';
import { outputOf } from './program.js';

/** The bus and the driver; what they need is found from them. */
const WANTED = ['virtio_pci', 'virtio_rng'];

export interface KernelModule {
  readonly name: string;
  /** The ELF object, no longer compressed. */
  readonly object: Buffer;
}

/** Gives the modules in loading order, without those that are built into the kernel. */
export async function modulesInLoadingOrder(
  kernel: Kernel,
  busybox: string,
): Promise<readonly KernelModule[]> {
  const files = await readdir(kernel.modulesFolder);
  const builtin = moduleNames((await readFile(kernel.builtinListPath, 'utf8')).split('\n'));
  const loaded = new Map<string, KernelModule>();

  async function load(name: string): Promise<void> {
    if (loaded.has(name) || builtin.includes(name)) return;
    const file = files.find((candidate) => moduleName(candidate) === name);
    if (file === undefined)
      throw new Error(`expected the module ${name} in ${kernel.id}, found neither module nor built-in`);
    const object = await readObject(join(kernel.modulesFolder, file), busybox);
    for (const dependency of dependenciesOf(object)) await load(dependency);
    loaded.set(name, { name, object });
  }

  for (const name of WANTED) await load(name);
  return [...loaded.values()];
}

function moduleNames(paths: readonly string[]): readonly string[] {
  return paths.map((path) => moduleName(path));
}

/** `kernel/drivers/char/hw_random/virtio-rng.ko.xz` is the module `virtio_rng`. */
function moduleName(path: string): string {
  return (path.split('/').at(-1) ?? '').replace(/\.ko(\.xz)?$/, '').replaceAll('-', '_');
}

/** busybox unpacks .xz too: no need of xz-utils on the host. */
function readObject(path: string, busybox: string): Promise<Buffer> {
  return path.endsWith('.xz') ? outputOf(busybox, ['xz', '-dc', path]) : readFile(path);
}

function dependenciesOf(object: Buffer): readonly string[] {
  const key = '\0depends=';
  const start = object.indexOf(key);
  if (start < 0) throw new Error('expected depends= in the .modinfo of a kernel module, got none');
  const end = object.indexOf(0, start + key.length);
  const names = object.toString('latin1', start + key.length, end).split(',');
  return moduleNames(names.filter((name) => name !== ''));
}
