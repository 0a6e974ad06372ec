// Anonymous memory files: what the daemon keeps for the process after it, and in tests a guest's memory.
// Source: memfd_create(2), "File sealing".
import { ftruncateSync, writeSync } from 'node:fs';
import { Fault } from '../protocol/fault.js';
import { errnoName } from './errno.js';
import { asFd, closeFd, type Fd } from './fd.js';
import * as libc from './libc.js';

/** A new memfd of `bytes`, sparse; sealed against shrinking unless told otherwise. Throws a Fault when there is none. */
export function openMemfd(
  name: string,
  bytes: number,
  options: { readonly sealed: boolean } = { sealed: true },
): Fd {
  const fd = libc.memfdCreate(name, libc.MFD_CLOEXEC | libc.MFD_ALLOW_SEALING);
  if (fd < 0)
    throw new Fault(
      'daemon',
      'memory_file',
      `making a memory file failed: ${errnoName(fd)}; raise LimitNOFILE`,
    );
  try {
    ftruncateSync(fd, bytes);
  } catch (error) {
    closeFd(asFd(fd));
    throw noMemory((error as NodeJS.ErrnoException).code ?? String(error));
  }
  if (options.sealed) libc.fcntl(fd, libc.F_ADD_SEALS, libc.F_SEAL_SHRINK);
  return asFd(fd);
}

/** Writes all of `bytes` at `offset`. Throws a Fault when there is no memory for them. */
export function writeWhole(fd: Fd, bytes: Uint8Array, offset: number): void {
  let written: number;
  try {
    written = writeSync(fd, bytes, 0, bytes.length, offset);
  } catch (error) {
    throw noMemory((error as NodeJS.ErrnoException).code ?? String(error));
  }
  if (written < bytes.length) throw noMemory(`${written} of ${bytes.length} bytes`);
}

function noMemory(got: string): Fault {
  return new Fault('daemon', 'memory_file', `expected memory for what the next process needs, got ${got}`);
}
