// The guest's kernel: Debian's cloud kernel, downloaded and unpacked but not installed. Its image goes to QEMU's -kernel,
// its virtio and hw_random modules into the initramfs.
import { copyFile, mkdir, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { packageFiles } from './debian-package.js';
import { outputOf } from './program.js';

/** The package that always depends on the newest cloud kernel of the Debian release. */
const META_PACKAGE = 'linux-image-cloud-amd64';

const CACHED_KERNEL = /^linux-image-.*-cloud-amd64_/;

/** The module folders that a virtio-rng guest needs, below `kernel/`. */
const MODULE_FOLDERS = ['drivers/virtio', 'drivers/char/hw_random'];

export interface Kernel {
  /** Package and version, as `linux-image-6.1.0-56-cloud-amd64_6.1.192-2`. */
  readonly id: string;
  readonly imagePath: string;
  /** Modules as Debian packs them, `.ko` or `.ko.xz`, all in this one folder. */
  readonly modulesFolder: string;
  /** The list of what is built in, so that a missing module can be told from a built-in one. */
  readonly builtinListPath: string;
}

/** Gives the guest's kernel, from the cache or by one download of about 30 MB. */
export async function fetchKernel(): Promise<Kernel> {
  const { id, folder } = await packageFiles({ cachedAs: CACHED_KERNEL, resolveName, keep });
  return {
    id,
    imagePath: join(folder, 'vmlinuz'),
    modulesFolder: join(folder, 'modules'),
    builtinListPath: join(folder, 'modules.builtin'),
  };
}

async function resolveName(): Promise<string> {
  const text = (await outputOf('apt-cache', ['depends', META_PACKAGE])).toString();
  const name = /Depends: (linux-image-\S+)/.exec(text)?.[1];
  if (name === undefined) throw new Error(`expected ${META_PACKAGE} to depend on a kernel, got:\n${text}`);
  return name;
}

async function keep(unpacked: string, kept: string): Promise<void> {
  const files = await readdir(unpacked, { recursive: true });
  const image = files.find((file) => /^boot\/vmlinuz-[^/]+$/.test(file));
  const builtinList = files.find((file) => file.endsWith('/modules.builtin'));
  if (image === undefined || builtinList === undefined) {
    throw new Error(
      `expected boot/vmlinuz-* and modules.builtin in the kernel package, got ${files.length} other files`,
    );
  }
  await copyFile(join(unpacked, image), join(kept, 'vmlinuz'));
  await copyFile(join(unpacked, builtinList), join(kept, 'modules.builtin'));
  await mkdir(join(kept, 'modules'));
  const modules = files.filter(
    (file) =>
      /\.ko(\.xz)?$/.test(file) && MODULE_FOLDERS.some((folder) => file.includes(`/kernel/${folder}/`)),
  );
  for (const module of modules) {
    await copyFile(join(unpacked, module), join(kept, 'modules', basename(module)));
  }
}
