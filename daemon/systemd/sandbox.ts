// What the sandbox of the service keeps from the daemon, so that a message can say so: home folders that are not there for it, a /tmp that
// nobody else sees, a network that it has not. The units in systemd/ say what is taken away. Source: systemd.exec(5).
import { readFileSync } from 'node:fs';

/** Where sockets can be: `RuntimeDirectory=`, by the variable that systemd sets, or the folder of the service for all guests. */
const RUNTIME_FOLDER = '/run/vhost-rngd';
/** Of /run/systemd, or in a container of /run/host, systemd mounts a folder over what ProtectHome= hides. */
const HIDDEN = '/inaccessible/';
/** In names of the folders that PrivateTmp= puts in the place of /tmp and /var/tmp. */
const PRIVATE = '/systemd-private-';
/** What connecting gives where there is no network: by RestrictAddressFamilies=, IPAddressDeny=, PrivateNetwork=, and no resolver. */
const NO_NETWORK: readonly string[] = ['EAFNOSUPPORT', 'EPERM', 'ENETUNREACH', 'EAI_AGAIN'];

/** True for the process that systemd itself has started, not for one that runs somewhere below. Source: systemd.exec(5), $SYSTEMD_EXEC_PID. */
export function isService(env: NodeJS.ProcessEnv = process.env, pid = process.pid): boolean {
  return env['SYSTEMD_EXEC_PID'] === String(pid);
}

/** Why nobody can connect to a socket at `path`; undefined: nothing is known against it. */
export function hiddenFrom(path: string): string | undefined {
  return isService() ? hiddenBy(path, readFileSync('/proc/self/mountinfo', 'utf8')) : undefined;
}

/** As {@link hiddenFrom}, with the text of `mountinfo`. Source: proc(5): the fourth field is the root, the fifth the mount point. */
export function hiddenBy(path: string, mountinfo: string): string | undefined {
  const [nearest] = mountinfo
    .split('\n')
    .map((line) => line.split(' '))
    .map(([, , , root = '', point = '']) => ({ root, point }))
    .filter(({ point }) => point !== '' && path.startsWith(point === '/' ? point : `${point}/`))
    // Of mounts on one point the last hides the others.
    .reverse()
    .sort((a, b) => b.point.length - a.point.length);
  if (nearest === undefined) return undefined;
  const { root, point } = nearest;
  if (root.includes(HIDDEN))
    return `expected a folder that the service sees, got ${point}, which its sandbox hides (ProtectHome=): ${advice()}`;
  return root.includes(PRIVATE)
    ? `expected a folder that VMMs see too, got ${point}, of which the service has its own (PrivateTmp=): ${advice()}`
    : undefined;
}

/** A folder that the service may write to. */
export function advice(): string {
  const [folder = RUNTIME_FOLDER] = (process.env['RUNTIME_DIRECTORY'] ?? RUNTIME_FOLDER).split(':');
  return `use ${folder}`;
}

/** What is to be said behind an error of connecting over TCP. */
export function networkHint(code: string): string {
  return isService() && NO_NETWORK.includes(code)
    ? "; the service's sandbox keeps the network from it: egd-over-tcp.conf opens it to one address"
    : '';
}
