// What the service manager has passed to this process: listening sockets by their names, and what the process before has kept.
// Source: sd_listen_fds(3).
import { asFd, type Fd } from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import { isKept, type NamedFd } from '../handover/kept-names.js';

/** The first fd that is passed. */
const LISTEN_FDS_START = 3;

/** The name of the control socket. */
const CONTROL = 'control';

/** All that was passed. */
export interface Passed {
  /** Of devices, from socket units; `name` is their FileDescriptorName, or the unit's. */
  readonly sockets: readonly NamedFd[];
  readonly control: Fd | undefined;
  /** Kept by a process before this one. */
  readonly kept: readonly NamedFd[];
}

/** Takes what was passed; a second call, and a child process, finds nothing. */
export function takePassed(env: NodeJS.ProcessEnv, pid: number): Passed {
  const { LISTEN_PID: forPid, LISTEN_FDS: count = '', LISTEN_FDNAMES: names = '' } = env;
  delete env['LISTEN_PID'];
  delete env['LISTEN_FDS'];
  delete env['LISTEN_FDNAMES'];
  if (forPid !== String(pid) || !/^\d{1,6}$/.test(count))
    return { sockets: [], control: undefined, kept: [] };
  const given = names.split(':');
  const passed = Array.from({ length: Number(count) }, (_, i): NamedFd => {
    const fd = asFd(LISTEN_FDS_START + i);
    libc.fcntl(fd, libc.F_SETFD, libc.FD_CLOEXEC);
    return { name: given[i] ?? 'unknown', fd };
  });
  return {
    sockets: passed.filter(({ name }) => !isKept(name) && name !== CONTROL),
    control: passed.find(({ name }) => name === CONTROL)?.fd,
    kept: passed.filter(({ name }) => isKept(name)),
  };
}
