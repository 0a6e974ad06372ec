// One daemon for one state file: a lock beside it that the kernel lets go when the process ends, however it ends.
import { constants, fstatSync, ftruncateSync, openSync, readSync, statSync, writeSync } from 'node:fs';
import { Fault } from '../protocol/fault.js';
import { asFd, closeFd, type Fd } from '../shared-memory/fd.js';
import * as libc from '../shared-memory/libc.js';

const PID_DIGITS = 10;

/**
 * Takes the lock of `path` for the life of the process; gives its fd, or a fault that names who has it. `passed`: the fd of the process that this
 * one takes over from; the lock goes over with it.
 */
export function lockState(path: string, passed: Fd | undefined): Fd | Fault {
  const lock = `${path}.lock`;
  if (passed !== undefined) {
    if (isFile(passed, lock)) return passed;
    closeFd(passed);
  }
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
  return asFd(fd);
}

/** Writes down, for whoever is refused, that this process has the lock. */
export function noteHolder(lock: Fd): void {
  ftruncateSync(lock);
  writeSync(lock, `${process.pid}\n`, 0);
}

function isFile(fd: Fd, path: string): boolean {
  const there = statSync(path, { throwIfNoEntry: false });
  const held = fstatSync(fd);
  return there?.ino === held.ino && there.dev === held.dev;
}
