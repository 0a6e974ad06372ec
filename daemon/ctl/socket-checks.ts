// What doctor looks at of sockets: the control socket and who may use it, the folders in which devices listen, and files that are left
// of daemons before.
//
// Nothing is connected to: on a device's socket that would be a front-end. The kernel's table says who listens.
import { dirname, join } from 'node:path';
import { type Check, note, ok, problem, shellWord } from './check.js';
import type { Host } from './host.js';
import { allows, groupName, type HostUser, ownersText, Right, thisUser } from './host-user.js';

const SOCKET = 0o140000;
const FILE_TYPE = 0o170000;
const OTHERS_WRITE = 0o002;
const GROUP_WRITE = 0o020;
const STICKY = 0o1000;
const ROOT = 0;
/** A socket of root's own group is for root alone, unless the configuration says otherwise. */
const ROOTS = 'sudo vhost-rngctl doctor';
/** Of a row in /proc/net/unix: a socket that listens. Source: linux/net.h, __SO_ACCEPTCON. */
const LISTENS = 0x10000;

/** The commands that bring a daemon back: one that is not there, and one that is but does not answer. */
export interface Remedies {
  readonly start: string;
  readonly restart: string;
}

/** Who may use the daemon at `path`; `failure`: why it has not answered. */
export function checkControlSocket(
  host: Host,
  path: string,
  failure: string | undefined,
  remedies: Remedies,
): Check {
  const name = 'control socket';
  const stat = host.stat(path);
  if (stat === undefined)
    return failure === undefined
      ? note(name, `${path} answers, but cannot be looked at`)
      : problem(name, failure, remedies.start);
  const user = thisUser(host);
  const text = `${path}, ${ownersText(host, stat)}`;
  if (!allows(stat, user, Right.Write)) {
    const group = groupName(host, stat.gid);
    const join = `sudo usermod -aG ${group} ${user.name} && newgrp ${group}`;
    return problem(name, `${text}: ${user.name} may not use it`, stat.gid === ROOT ? ROOTS : join);
  }
  return failure === undefined
    ? ok(name, `${text}: ${user.name} may use it`)
    : problem(name, `${text}: ${failure}`, remedies.restart);
}

/**
 * Who can put a socket of his own where the VMMs look for ours, and whether the daemon can; undefined: it makes none there, or is not
 * known.
 */
export function checkFolder(host: Host, folder: string, daemon: HostUser | undefined): Check {
  const name = `folder ${folder}`;
  const stat = host.stat(folder);
  const word = shellWord(folder);
  if (stat === undefined)
    return problem(
      name,
      'is not there',
      `sudo install -d -m 0755 ${daemon === undefined ? '' : `-o ${daemon.name} `}${word}`,
    );
  const text = ownersText(host, stat);
  const { mode } = stat;
  if ((mode & OTHERS_WRITE) !== 0 && (mode & STICKY) === 0)
    return problem(
      name,
      `${text}: anyone can replace its sockets, and the daemon refuses it`,
      `sudo chmod o-w ${word}`,
    );
  if (daemon !== undefined && !allows(stat, daemon, Right.Write | Right.Enter))
    return problem(
      name,
      `${text}: ${daemon.name} can make no socket there`,
      `sudo chown ${daemon.name} ${word}`,
    );
  if ((mode & OTHERS_WRITE) !== 0)
    return note(
      name,
      `${text}: anyone can make a socket there before the daemon does; /run/vhost-rngd is the service's own`,
    );
  if ((mode & GROUP_WRITE) !== 0 && stat.gid !== ROOT)
    return note(
      name,
      `${text}: members of ${groupName(host, stat.gid)} can replace its sockets`,
      `sudo chmod g-w ${word}`,
    );
  return (mode & 0o011) === 0 && stat.uid !== ROOT
    ? note(name, `${text}: only its owner can reach the sockets`, `sudo chmod g+x ${word}`)
    : ok(name, text);
}

/** What is known of sockets besides their files. */
export interface Served {
  /** Paths that are known to be served. */
  readonly live: readonly string[];
  /** Paths of socket units. */
  readonly paths: ReadonlySet<string>;
  /** Processes with, perhaps, a network namespace of their own, whose sockets stand in its own table. */
  readonly pids: readonly number[];
  /** A service that is being started replaces its own. */
  readonly isStarting: boolean;
}

/** Socket files of these folders on which nobody listens. */
export function checkStaleSockets(host: Host, folders: readonly string[], served: Served): Check {
  const name = 'old sockets';
  const tables = ['/proc/net/unix', ...served.pids.map((pid) => `/proc/${pid}/net/unix`)];
  const listening = tables.flatMap((table) => listeningPaths(host.text(table) ?? ''));
  const known = new Set([...served.live, ...served.paths, ...listening]);
  const stale = folders
    .flatMap((folder) => host.list(folder).map((entry) => join(folder, entry)))
    .filter((path) => ((host.stat(path)?.mode ?? 0) & FILE_TYPE) === SOCKET && !known.has(path));
  if (stale.length === 0) return ok(name, 'none');
  const paths = stale.join(', ');
  if (served.isStarting)
    return note(name, `nobody listens on ${paths} now: the service is being started, and replaces its own`);
  return note(
    name,
    `nobody listens on ${paths}: left by a daemon that was killed; the next one replaces its own`,
    `sudo rm ${stale.map(shellWord).join(' ')}`,
  );
}

/** Paths on which someone listens. Source: proc(5), /proc/net/unix: the fourth field is flags, the eighth the path. */
export function listeningPaths(table: string): string[] {
  return table.split('\n').flatMap((line) => {
    const [, flags = '', path] = /^\S+ \S+ \S+ (\S+) \S+ \S+ +\S+ (.+)$/.exec(line) ?? [];
    return path !== undefined && (parseInt(flags, 16) & LISTENS) !== 0 ? [path] : [];
  });
}

/** The folders of these sockets, each once. */
export function foldersOf(paths: readonly string[]): string[] {
  return [...new Set(paths.map((path) => dirname(path)))].sort();
}
