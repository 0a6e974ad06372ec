// Anonymous memory files: what the daemon keeps for the process after it, and in tests a guest's memory.
// Source: memfd_create(2), "File sealing".
import { ftruncateSync } from 'node:fs';
import { Fault } from '../protocol/fault.js';
import { errnoName } from './errno.js';
import { asFd, type Fd } from './fd.js';
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
  ftruncateSync(fd, bytes);
  if (options.sealed) libc.fcntl(fd, libc.F_ADD_SEALS, libc.F_SEAL_SHRINK);
  return asFd(fd);
}
