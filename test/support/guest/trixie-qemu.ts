// The QEMU of Debian 13 (10.0) on a host with another one: a root of its own, made once, whose program runs with its own libraries.
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemdRoot } from '../systemd/root.js';

const RELEASE = { name: 'qemu-trixie', suite: 'trixie', packages: ['qemu-system-x86'] };

/** A program that is this QEMU; 30 s and 360 MB of cache at the first time. Needs root and debootstrap. */
export async function trixieQemu(folder: string): Promise<string> {
  const root = await systemdRoot(RELEASE);
  const libraries = `${root}/usr/lib/x86_64-linux-gnu`;
  const program = join(folder, 'qemu-trixie');
  const loader = `${root}/lib64/ld-linux-x86-64.so.2 --library-path ${libraries}:${libraries}/pulseaudio`;
  const firmware = `-L ${root}/usr/share/qemu -L ${root}/usr/share/seabios`;
  const command = `exec ${loader} ${root}/usr/bin/qemu-system-x86_64 ${firmware} "$@"`;
  await writeFile(program, `#!/bin/sh\nQEMU_MODULE_DIR=${libraries}/qemu ${command}\n`);
  await chmod(program, 0o755);
  return program;
}
