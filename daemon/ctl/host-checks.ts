// What doctor looks at on a host that is neither a source nor a socket: node, limits, memory for guests, confinement, other programs.
import { type Check, note, ok, problem, shellWord } from './check.js';
import type { Host } from './host.js';
import { bytesText } from '../units.js';

const LEAST_NODE = [20, 12] as const;
/** A source's queue and staging, and the pools: some 45 KiB a source. */
const LEAST_MEMLOCK_BYTES = 256 * 1024;
/** A guest takes some 10. */
const LEAST_FILES = 4096;
const FILES_OF_A_GUEST = 10;
/** From here on one write to a VMM's eventfd can be made slow; see ARCHITECTURE.md, "Threat model". */
const MANY_EPOLL_WATCHES = 1_000_000;
/** The first QEMU whose guest ends when its back-end comes back. */
const ENDING_QEMU = 10;

const SHARED_MEMORY = '/dev/shm';
const APPARMOR_ENABLED = '/sys/module/apparmor/parameters/enabled';
const LIBVIRT_PROFILE = '/etc/apparmor.d/abstractions/libvirt-qemu';
const LIBVIRT_LOCAL = '/etc/apparmor.d/local/abstractions/libvirt-qemu';

export function checkNode({ nodeVersion }: Host): Check {
  const [major = 0, minor = 0] = nodeVersion.split('.').map(Number);
  const isNew = major > LEAST_NODE[0] || (major === LEAST_NODE[0] && minor >= LEAST_NODE[1]);
  return isNew
    ? ok('node', `version ${nodeVersion}`)
    : problem(
        'node',
        `version ${nodeVersion}, and ${LEAST_NODE.join('.')} or later is needed`,
        'curl -fsSL https://deb.nodesource.com/setup_22.x | sudo bash - && sudo apt-get install -y nodejs',
      );
}

/** The limits of a process, from its `limits` file; soft ones. Source: proc(5). */
function softLimit(limits: string, title: string): number {
  const value = new RegExp(`^${title} +(\\S+)`, 'm').exec(limits)?.[1] ?? 'unlimited';
  return value === 'unlimited' ? Infinity : Number(value);
}

/** `pid`: the daemon that runs, as `unit`; undefined: none does, and this shell's limits are what there is. */
export function checkLimits(host: Host, pid: number | undefined, unit: string): Check[] {
  const whose = pid === undefined ? 'limit of this shell' : 'limit of the daemon';
  const limits = host.text(`/proc/${pid ?? 'self'}/limits`);
  if (limits === undefined) return [note('limits', `the ${whose} cannot be read: run this as root`)];
  const locked = softLimit(limits, 'Max locked memory');
  const files = softLimit(limits, 'Max open files');
  // A running daemon gets its limits from its unit, at its next start.
  const fix = (shell: string, setting: string): string => (pid === undefined ? shell : dropIn(unit, setting));
  return [
    locked >= LEAST_MEMLOCK_BYTES
      ? ok('locked memory', `${whose}: ${locked === Infinity ? 'none' : bytesText(locked)}`)
      : problem(
          'locked memory',
          `${whose}: ${bytesText(locked)}, and ${bytesText(LEAST_MEMLOCK_BYTES)} are needed to keep entropy out of swap`,
          fix('ulimit -l 8192', 'LimitMEMLOCK=8M'),
        ),
    files >= LEAST_FILES
      ? ok('open files', `${whose}: ${files === Infinity ? 'none' : files}`)
      : note(
          'open files',
          `${whose}: ${files}, enough for some ${Math.floor(files / FILES_OF_A_GUEST)} guests`,
          fix('ulimit -n 65536', 'LimitNOFILE=65536'),
        ),
  ];
}

/** Guests go on over the restart. */
function dropIn(unit: string, setting: string): string {
  const folder = `/etc/systemd/system/${unit}.d`;
  const file = shellWord(`${folder}/${setting.split('=')[0] ?? ''}.conf`);
  const write = `printf '[Service]\\n${setting}\\n' | sudo tee ${file}`;
  return `sudo mkdir -p ${shellWord(folder)} && ${write} && sudo systemctl daemon-reload && sudo systemctl restart ${shellWord(unit)}`;
}

/** A guest's memory has to be a file that its VMM shares: best a sealed memory file, otherwise one in /dev/shm. */
export function checkGuestMemory(host: Host): Check {
  const name = 'guest memory';
  const failure = host.memfdFailure();
  if (failure === undefined) return ok(name, 'memory files can be made and sealed: memory-backend-memfd');
  return host.stat(SHARED_MEMORY) === undefined
    ? problem(
        name,
        `no memory file can be made (${failure}), and there is no ${SHARED_MEMORY}`,
        `sudo mkdir -p ${SHARED_MEMORY} && sudo mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs ${SHARED_MEMORY}`,
      )
    : note(
        name,
        `no memory file can be made (${failure}): guests need memory-backend-file,mem-path=${SHARED_MEMORY},share=on`,
      );
}

/** Whether QEMU under libvirt may reach the sockets in these folders. */
export function checkAppArmor(host: Host, folders: readonly string[]): Check {
  const name = 'AppArmor';
  if (host.text(APPARMOR_ENABLED)?.trim() !== 'Y') return ok(name, 'confines nothing here');
  if (host.stat(LIBVIRT_PROFILE) === undefined) return ok(name, 'libvirt has no profile here');
  const rules = (host.text(LIBVIRT_LOCAL) ?? '')
    .split('\n')
    .filter((line) => !line.trimStart().startsWith('#'));
  const missing = folders.filter((folder) => !rules.some((rule) => rule.includes(`${folder}/`)));
  if (missing.length === 0) return ok(name, "libvirt's guests may open the sockets");
  const lines = missing.map((folder) => shellWord(`  ${folder}/*.sock rw,`)).join(' ');
  return problem(
    name,
    `libvirt's guests may not open sockets in ${missing.join(', ')}`,
    `printf '%s\\n' ${lines} | sudo tee -a ${LIBVIRT_LOCAL}`,
  );
}

/** What becomes of a guest whose daemon is started again. */
export async function checkQemu(host: Host): Promise<Check> {
  const said = await host.run('qemu-system-x86_64', ['--version']);
  const version = /version (\d+)\.\S+/.exec(said ?? '');
  if (version === null) return note('QEMU', 'no qemu-system-x86_64 here');
  return Number(version[1]) >= ENDING_QEMU
    ? note(
        'QEMU',
        `${version[0]}, which ends when its back-end comes back: leave the daemon running under guests`,
      )
    : ok('QEMU', version[0]);
}

export function checkEpollWatches(host: Host): Check {
  const name = 'epoll watches';
  const most = Number(host.text('/proc/sys/fs/epoll/max_user_watches') ?? 0);
  return most < MANY_EPOLL_WATCHES
    ? ok(name, `fs.epoll.max_user_watches is ${most}`)
    : note(
        name,
        `fs.epoll.max_user_watches is ${most}: a hostile VMM can slow its own signals down by 0.1 s`,
        'sudo sysctl -w fs.epoll.max_user_watches=65536',
      );
}
