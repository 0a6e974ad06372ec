// Users of a host and what files let them do, from the text of its files: as the kernel would decide, without being that user.
import type { FileFacts, Host } from './host.js';

export interface HostUser {
  readonly name: string;
  readonly uid: number;
  readonly gids: readonly number[];
}

/** The user that the packages make for the daemon. */
export const SERVICE_USER = 'vhost-rngd';
const ROOT = 0;
/** Bits of a mode, of others; shifted for group and owner. */
export const Right = { Read: 0o4, Write: 0o2, Enter: 0o1 } as const;

/** Who runs this. */
export function thisUser(host: Host): HostUser {
  return { name: userName(host, host.uid), uid: host.uid, gids: host.gids };
}

/** Whom the daemon runs as: that of the process, or the service's user where none runs; undefined: there is none. */
export function daemonUser(host: Host, pid: number | undefined): HostUser | undefined {
  return pid === undefined ? namedUser(host, SERVICE_USER) : processUser(host, pid);
}

/** True when the mode of a file gives `rights` to `user`. Access control lists are not looked at. */
export function allows({ mode, uid, gid }: FileFacts, user: HostUser, rights: number): boolean {
  if (user.uid === ROOT) return true;
  const bits = user.uid === uid ? mode >> 6 : user.gids.includes(gid) ? mode >> 3 : mode;
  return (bits & rights) === rights;
}

/** `root:vhost-rngd, mode 0750`. */
export function ownersText(host: Host, { mode, uid, gid }: FileFacts): string {
  const octal = (mode & 0o7777).toString(8).padStart(4, '0');
  return `${userName(host, uid)}:${groupName(host, gid)}, mode ${octal}`;
}

export function groupName(host: Host, gid: number): string {
  return entries(host, '/etc/group').find(([, , id]) => id === String(gid))?.[0] ?? String(gid);
}

function userName(host: Host, uid: number): string {
  return entries(host, '/etc/passwd').find(([, , id]) => id === String(uid))?.[0] ?? String(uid);
}

function namedUser(host: Host, name: string): HostUser | undefined {
  const [, , uid, gid] = entries(host, '/etc/passwd').find(([entry]) => entry === name) ?? [];
  if (uid === undefined) return undefined;
  const groups = entries(host, '/etc/group').filter(([, , , members = '']) =>
    members.split(',').includes(name),
  );
  return { name, uid: Number(uid), gids: [gid, ...groups.map(([, , id]) => id)].map(Number) };
}

/** Effective user, group and further groups of a process. Source: proc(5), status. */
function processUser(host: Host, pid: number): HostUser | undefined {
  const status = host.text(`/proc/${pid}/status`) ?? '';
  const field = (name: string): readonly number[] =>
    (new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '').split(/\s+/).filter(Boolean).map(Number);
  const [, uid] = field('Uid');
  const [, gid] = field('Gid');
  if (uid === undefined || gid === undefined) return undefined;
  return { name: userName(host, uid), uid, gids: [gid, ...field('Groups')] };
}

/** Lines of a file of fields between colons. */
function entries(host: Host, path: string): readonly (readonly string[])[] {
  return (host.text(path) ?? '').split('\n').map((line) => line.split(':'));
}
