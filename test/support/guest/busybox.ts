// The guest's whole userland: one statically linked busybox, the host's own or out of Debian's busybox-static package.
import { copyFile, open } from 'node:fs/promises';
import { join } from 'node:path';
import { packageFiles } from './debian-package.js';

const HOST_PATHS = ['/bin/busybox', '/usr/bin/busybox'];

/** ELF program header type of the dynamic linker's path: a static executable has none. */
const PT_INTERP = 3;

/** Gives the path of a static busybox; downloads the package when the host has none. */
export async function findBusybox(): Promise<string> {
  for (const path of HOST_PATHS) {
    if (await isStaticExecutable(path)) return path;
  }
  try {
    const { folder } = await packageFiles({
      cachedAs: /^busybox-static_/,
      resolveName: () => Promise.resolve('busybox-static'),
      keep,
    });
    return join(folder, 'busybox');
  } catch (cause) {
    throw new Error('no static busybox for the guest; type: sudo apt-get install busybox-static', { cause });
  }
}

async function keep(unpacked: string, kept: string): Promise<void> {
  for (const path of HOST_PATHS) {
    if (!(await isStaticExecutable(join(unpacked, path)))) continue;
    await copyFile(join(unpacked, path), join(kept, 'busybox'));
    return;
  }
  throw new Error('expected a static bin/busybox in the package busybox-static, found none');
}

/** True for a 64-bit little-endian ELF file without a PT_INTERP header; false also when it is not there. */
async function isStaticExecutable(path: string): Promise<boolean> {
  const file = await open(path).catch(() => undefined);
  if (file === undefined) return false;
  try {
    const head = Buffer.alloc(4096);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    if (bytesRead < 64 || head.toString('latin1', 0, 6) !== '\x7fELF\x02\x01') return false;
    const offset = Number(head.readBigUInt64LE(32));
    const entrySize = head.readUInt16LE(54);
    const count = head.readUInt16LE(56);
    if (offset + entrySize * count > bytesRead) return false;
    const types = Array.from({ length: count }, (_, index) => head.readUInt32LE(offset + index * entrySize));
    return !types.includes(PT_INTERP);
  } finally {
    await file.close();
  }
}
