// Error numbers of Linux by name, as the daemon's own system calls return them: negated, as the kernel does.
import { constants } from 'node:os';

/** Error numbers that the code decides on. Source: errno(3), from the running platform's own table. */
export const Errno = {
  EINTR: constants.errno.EINTR,
  EIO: constants.errno.EIO,
  EAGAIN: constants.errno.EAGAIN,
  EFAULT: constants.errno.EFAULT,
  ENODATA: constants.errno.ENODATA,
  EPIPE: constants.errno.EPIPE,
  EMFILE: constants.errno.EMFILE,
  ENFILE: constants.errno.ENFILE,
  ENOBUFS: constants.errno.ENOBUFS,
  ENOMEM: constants.errno.ENOMEM,
  // Not in node's table; the same number on every platform that the daemon runs on.
  ETOOMANYREFS: 109,
  ECONNREFUSED: constants.errno.ECONNREFUSED,
  ECONNRESET: constants.errno.ECONNRESET,
  ECONNABORTED: constants.errno.ECONNABORTED,
  EADDRINUSE: constants.errno.EADDRINUSE,
} as const;

const NAMES = new Map<number, string>(Object.entries(constants.errno).map(([name, value]) => [value, name]));
// node's table lists EWOULDBLOCK and EOPNOTSUPP under the same numbers; these are the names people search for.
NAMES.set(constants.errno.EAGAIN, 'EAGAIN');

/** The name of a negated error number as a system call returned it: `errnoName(-2)` is `ENOENT`. */
export function errnoName(result: number): string {
  return NAMES.get(-result) ?? `errno ${-result}`;
}
