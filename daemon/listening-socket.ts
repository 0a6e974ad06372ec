// The socket file of a device: claimed at start, given mode and group, removed at exit if it is still ours.
import { chmodSync, chownSync, lstatSync, readFileSync, statSync, unlinkSync, type Stats } from 'node:fs';
import { dirname } from 'node:path';
import { Errno, errnoName } from '../shared-memory/errno.js';
import { asFd, closeFd, type Fd } from '../shared-memory/fd.js';
import * as libc from '../shared-memory/libc.js';
import { bindTo, connectTo, MAX_SOCKET_PATH_BYTES, openSocket } from '../shared-memory/unix-socket.js';
import { Fault } from '../protocol/fault.js';
import { advice, hiddenFrom, isService } from './systemd/sandbox.js';
import { filesFix } from './too-few-files.js';

/** Front-ends that may wait to be accepted; each device serves one. Ours. */
const BACKLOG = 16;
const WORLD_WRITABLE = 0o002;
const STICKY = 0o1000;

/** A bound, listening socket and the file that is its name. */
export interface ListeningSocket {
  readonly fd: Fd;
  readonly path: string;
  /** Which file it is, so that only ours is removed. */
  readonly inode: number;
}

/** Who may connect: the file's mode, and its group by name or number (undefined: the daemon's own). */
export interface SocketAccess {
  readonly mode: number;
  readonly group: string | undefined;
}

/**
 * Binds `path` and listens. The socket file of a dead daemon is replaced; a live one's, and any other file, is refused.
 *
 * Gives a fault of scope `daemon` that names the fix.
 */
export function listenOn(path: string, access: SocketAccess): ListeningSocket | Fault {
  try {
    return claim(path, access);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    return refuse(
      'socket_file',
      `making the socket file ${path} failed: ${code} (this user needs its folder, and to be in its group)`,
    );
  }
}

/** As {@link listenOn}; throws node's error where a call on a file fails that the checks before had let pass. */
function claim(path: string, access: SocketAccess): ListeningSocket | Fault {
  const gid = access.group === undefined ? undefined : groupId(access.group);
  if (gid instanceof Fault) return gid;
  const refused = checkPath(path) ?? clearStale(path);
  if (refused) return refused;
  const fd = openSocket({ nonBlocking: true });
  if (fd < 0) return noSocket(fd);
  const bound = bindWithMode(asFd(fd), path, access.mode);
  const listening = bound < 0 ? bound : libc.listen(fd, BACKLOG);
  if (listening < 0) {
    closeFd(asFd(fd));
    const name = errnoName(listening);
    const hint = name === 'EROFS' && isService() ? `: ${advice()}` : '';
    return refuse('socket_bind', `listening on ${path} failed: ${name}${hint}`);
  }
  try {
    if (gid !== undefined) chownSync(path, -1, gid);
    return { fd: asFd(fd), path, inode: lstatSync(path).ino };
  } catch (error) {
    closeFd(asFd(fd));
    unlinkSync(path);
    throw error;
  }
}

/** Binds so that no one can connect who may not, not even between bind(2) and chmod(2). */
function bindWithMode(fd: Fd, path: string, mode: number): number {
  const umask = process.umask(0o177);
  try {
    const bound = bindTo(fd, path);
    if (bound === 0) chmodSync(path, mode);
    return bound;
  } finally {
    process.umask(umask);
  }
}

/** A socket that listens at `path` already, with the file that is there now; undefined when there is none. */
export function socketFileOf(fd: Fd, path: string): ListeningSocket | undefined {
  const stat = statOf(path);
  return stat?.isSocket() === true ? { fd, path, inode: stat.ino } : undefined;
}

/** Removes the socket file, unless someone has put another in its place. The fd belongs to the data plane by then. */
export function removeSocketFile(socket: ListeningSocket): void {
  if (statOf(socket.path)?.ino === socket.inode) unlinkSync(socket.path);
}

function checkPath(path: string): Fault | undefined {
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_SOCKET_PATH_BYTES) {
    return refuse(
      'socket_path_long',
      `expected a socket path of at most ${MAX_SOCKET_PATH_BYTES} bytes, got ${bytes}: ${path}`,
    );
  }
  const hidden = hiddenFrom(path);
  if (hidden !== undefined) return refuse('socket_folder_hidden', hidden);
  const folder = dirname(path);
  let stat: Stats;
  try {
    stat = statSync(folder);
  } catch {
    return refuse(
      'socket_folder_missing',
      `expected the folder ${folder}, which is not there: mkdir -p ${folder}`,
    );
  }
  if (!stat.isDirectory()) {
    return refuse('socket_folder_missing', `expected ${folder} to be a folder, got something else`);
  }
  if ((stat.mode & WORLD_WRITABLE) !== 0 && (stat.mode & STICKY) === 0) {
    return refuse(
      'socket_folder_open',
      `expected a folder that not everyone may change, got ${folder}: chmod o-w ${folder}`,
    );
  }
  return undefined;
}

/** Looks at what lies at `path`: nothing, a dead daemon's socket (removed), or something that is not ours to remove. */
function clearStale(path: string): Fault | undefined {
  const stat = statOf(path);
  if (stat === undefined) return undefined;
  if (!stat.isSocket()) {
    const kind = stat.isSymbolicLink() ? 'a symbolic link' : stat.isDirectory() ? 'a directory' : 'a file';
    return refuse(
      'socket_path_taken',
      `expected a free path or an old socket, got ${kind}: choose another path or remove ${path}`,
    );
  }
  const probe = openSocket({ nonBlocking: true });
  if (probe < 0) return noSocket(probe);
  const connected = connectTo(asFd(probe), path);
  closeFd(asFd(probe));
  if (connected === -Errno.ECONNREFUSED) {
    unlinkSync(path);
    return undefined;
  }
  // EAGAIN: its backlog is full, so someone does listen.
  return connected === 0 || connected === -Errno.EAGAIN
    ? refuse('socket_path_live', `another daemon serves ${path}: stop it or choose another path`)
    : refuse('socket_path_taken', `looking at the old socket ${path} failed: ${errnoName(connected)}`);
}

function statOf(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

/** A group's number, by name from /etc/group or as digits. */
function groupId(group: string): number | Fault {
  if (/^\d+$/.test(group)) return Number(group);
  const line = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith(`${group}:`));
  const gid = Number(line?.split(':')[2] ?? NaN);
  return Number.isInteger(gid)
    ? gid
    : refuse('socket_group', `expected a group of this host, got ${group}: groupadd --system ${group}`);
}

function noSocket(result: number): Fault {
  const name = errnoName(result);
  const fix = filesFix(name);
  return refuse('socket_failed', `socket: ${name}${fix === undefined ? '' : `: ${fix}`}`);
}

function refuse(code: string, message: string): Fault {
  return new Fault('daemon', code, message);
}
