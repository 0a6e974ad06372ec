// One daemon for one state file: a lock beside it that the kernel lets go when the process ends, however it ends.
import { constants, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { Fault } from '../protocol/fault.js';
import { asFd, closeFd } from '../shared-memory/fd.js';
import * as libc from '../shared-memory/libc.js';

const PID_DIGITS = 10;

/** Takes the lock of `path` for the life of the process; a fault names who has it. */
export function lockState(path: string): Fault | undefined {
  const lock = `${path}.lock`;
  let fd: number;
  try {
    fd = openSync(lock, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    return new Fault(
      'daemon',
      'state_file',
      `expected to make ${lock}, got ${code}: let this user write in its folder`,
    );
  }
  if (libc.flock(fd, libc.LOCK_EX | libc.LOCK_NB) < 0) {
    const pid = Buffer.alloc(PID_DIGITS);
    const holder = pid.toString('latin1', 0, readSync(fd, pid, 0, PID_DIGITS, 0)).trim();
    closeFd(asFd(fd));
    return new Fault(
      'daemon',
      'state_file_taken',
      `expected a state file of its own, got ${path}, which the daemon of pid ${holder} keeps: stop that one, or use another --state-file`,
    );
  }
  ftruncateSync(fd);
  writeSync(fd, `${process.pid}\n`, 0);
  return undefined;
}
