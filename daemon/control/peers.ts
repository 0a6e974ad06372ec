// Who is at the other end of a connection to the control socket, and what they may do.
//
// Whoever may connect (the socket file's mode and group) may read; with a list of readers, only those on it. Changing is for
// root, the daemon's own user and the listed admins. The kernel vouches for the numbers: SO_PEERCRED.
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { Fault } from '../../protocol/fault.js';
import { asFd } from '../../shared-memory/fd.js';
import { peerCredentials } from '../../shared-memory/unix-socket.js';

const ROOT = 0;

/** A process that speaks to the control socket. */
export interface Peer {
  readonly pid: number;
  readonly uid: number;
  readonly mayChange: boolean;
}

/** Who may do what, by user number. */
export interface AccessRules {
  readonly admins: readonly number[];
  /** undefined: whoever may connect. */
  readonly readers: readonly number[] | undefined;
}

/** The peer of an accepted connection; undefined when it may not even read, or the kernel does not say who it is. */
export function admit(socket: Socket, rules: AccessRules): Peer | undefined {
  const fd = descriptorOf(socket);
  if (fd === undefined) return undefined;
  const { pid, uid } = peerCredentials(asFd(fd));
  if (uid < 0) return undefined;
  const mayChange = uid === ROOT || uid === process.getuid?.() || rules.admins.includes(uid);
  const mayRead = mayChange || rules.readers === undefined || rules.readers.includes(uid);
  return mayRead ? { pid, uid, mayChange } : undefined;
}

/**
 * Node accepts connections but has no documented way to the descriptor; its handle has had this property since
 * version 0.12. Where it is missing nobody is admitted.
 */
function descriptorOf(socket: Socket): number | undefined {
  const handle = (socket as { readonly _handle?: { readonly fd?: unknown } | null })._handle;
  const fd = handle?.fd;
  return typeof fd === 'number' && fd >= 0 ? fd : undefined;
}

/** A user's number, by name from /etc/passwd or as digits. */
export function userId(user: string): number | Fault {
  if (/^\d+$/.test(user)) return Number(user);
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith(`${user}:`));
  const uid = Number(line?.split(':')[2] ?? NaN);
  return Number.isInteger(uid)
    ? uid
    : new Fault('daemon', 'control_user', `expected a user of this host, got ${user}`);
}
