// A host that is made up, for what doctor finds where it cannot be had: files by path, and what programs print.
import type { FileFacts, Host } from '../../daemon/ctl/host.js';

export interface MadeUpHost {
  readonly nodeVersion?: string;
  readonly uid?: number;
  readonly gids?: readonly number[];
  /** Text by path. */
  readonly files?: Readonly<Record<string, string>>;
  /** `root:root 0755` by path, owner and group as numbers: `0:105 0750`; with type bits in front for what is no plain file. */
  readonly stats?: Readonly<Record<string, string>>;
  /** What a program prints, by its name, or with its arguments by its line. */
  readonly programs?: Readonly<Record<string, string>>;
  readonly memfdFailure?: string;
}

/** Users and groups: root, the service's, a VMM's, and one of the service's group. */
const USERS =
  'root:x:0:0::/root:/bin/sh\nvhost-rngd:x:105:105::/:/bin/false\nqemu:x:107:107::/:/bin/false\nada:x:1000:1000::/home/ada:/bin/sh\n';
const GROUPS = 'root:x:0:\nvhost-rngd:x:105:ada\nqemu:x:107:\nada:x:1000:\n';

/** The host of a user `ada`, unless told otherwise. */
export function madeUpHost(given: MadeUpHost = {}): Host {
  const files: Readonly<Record<string, string>> = {
    '/etc/passwd': USERS,
    '/etc/group': GROUPS,
    ...given.files,
  };
  const { uid = 1000, gids = [1000], stats = {} } = given;
  const stat = (path: string): FileFacts | undefined => {
    const [, owner, group, mode] = /^(\d+):(\d+) ([0-7]+)$/.exec(stats[path] ?? '') ?? [];
    if (mode === undefined) return undefined;
    return { uid: Number(owner), gid: Number(group), mode: parseInt(mode, 8) };
  };
  return {
    nodeVersion: given.nodeVersion ?? '22.1.0',
    uid,
    gids,
    text: (path) => files[path],
    stat,
    list: (folder) =>
      Object.keys(stats)
        .filter((path) => path.startsWith(`${folder}/`))
        .map((path) => path.slice(folder.length + 1)),
    canRead: (path) => {
      const facts = stat(path);
      return facts !== undefined && (facts.mode & (facts.uid === uid ? 0o400 : 0o004)) !== 0;
    },
    memfdFailure: () => given.memfdFailure,
    run: (program, args) =>
      Promise.resolve(given.programs?.[[program, ...args].join(' ')] ?? given.programs?.[program]),
  };
}
