// What doctor looks at on a host, each by itself: what was found, and the fix to paste where it is a problem.
import type { Host } from './host.js';
import { bytesText } from './units.js';

/** How one look has turned out. A note is nothing wrong, but worth knowing. */
export interface Check {
  readonly name: string;
  readonly verdict: 'ok' | 'note' | 'problem';
  readonly found: string;
  /** What to do about it; null: nothing. */
  readonly fix: string | null;
}

const LEAST_NODE = [20, 12] as const;
/** A source's queue and staging, and the pools: some 45 KiB a source. */
const LEAST_MEMLOCK_BYTES = 256 * 1024;
/** Each guest takes some 8 fds. */
const LEAST_FILES = 4096;
/** From here on one write to a VMM's eventfd can be made slow; see ARCHITECTURE.md, "Threat model". */
const MANY_EPOLL_WATCHES = 1_000_000;

const HWRNG = '/dev/hwrng';
const HWRNG_CURRENT = '/sys/class/misc/hw_random/rng_current';

export function ok(name: string, found: string): Check {
  return { name, verdict: 'ok', found, fix: null };
}

export function note(name: string, found: string, fix: string | null = null): Check {
  return { name, verdict: 'note', found, fix };
}

export function problem(name: string, found: string, fix: string): Check {
  return { name, verdict: 'problem', found, fix };
}

export function checkNode({ nodeVersion }: Host): Check {
  const [major = 0, minor = 0] = nodeVersion.split('.').map(Number);
  const isNew = major > LEAST_NODE[0] || (major === LEAST_NODE[0] && minor >= LEAST_NODE[1]);
  return isNew
    ? ok('node', `version ${nodeVersion}`)
    : problem('node', `version ${nodeVersion}`, `install node ${LEAST_NODE.join('.')} or later`);
}

export function checkKernelPool(host: Host): Check {
  return host.canRead('/dev/random')
    ? ok('kernel pool', '/dev/random can be read')
    : problem(
        'kernel pool',
        '/dev/random cannot be read',
        'chmod 0666 /dev/random; in a container, pass the device in',
      );
}

/** A hardware generator that is there but not for us is a problem; none at all is how many machines are. */
export function checkHwrng(host: Host): Check {
  const name = 'hardware generator';
  if (host.stat(HWRNG) === undefined)
    return note(
      name,
      `no ${HWRNG} on this machine`,
      'modprobe a driver (virtio_rng in a VM, tpm-rng), or draw from random',
    );
  const current = host.text(HWRNG_CURRENT)?.trim() ?? '';
  if (current === '' || current === 'none')
    return note(
      name,
      `${HWRNG} has no generator behind it`,
      'modprobe a driver (virtio_rng in a VM, tpm-rng), or draw from random',
    );
  if (host.canRead(HWRNG)) return ok(name, `${HWRNG} is ${current}, and can be read`);
  return note(
    name,
    `${HWRNG} is ${current}, and this user may not read it; the daemon's may need this too`,
    `echo 'KERNEL=="hwrng", GROUP="vhost-rngd", MODE="0440"' | sudo tee /etc/udev/rules.d/90-vhost-rngd.rules && sudo udevadm trigger --name-match=hwrng`,
  );
}

/** The limits of a process, from its `limits` file; soft ones. Source: proc(5). */
function softLimit(limits: string, title: string): number | undefined {
  const value = new RegExp(`^${title} +(\\S+)`, 'm').exec(limits)?.[1];
  if (value === undefined) return undefined;
  return value === 'unlimited' ? Infinity : Number(value);
}

/** `pid`: the daemon that runs; undefined: none does, and this shell's limits are what there is. */
export function checkLimits(host: Host, pid: number | undefined): Check[] {
  const whose = pid === undefined ? "this shell's" : "the daemon's";
  const limits = host.text(`/proc/${pid ?? 'self'}/limits`);
  if (limits === undefined) return [note('limits', `${whose} limits cannot be read`, 'run this as root')];
  const locked = softLimit(limits, 'Max locked memory') ?? Infinity;
  const files = softLimit(limits, 'Max open files') ?? Infinity;
  const lockedText = locked === Infinity ? 'no limit' : bytesText(locked);
  return [
    locked >= LEAST_MEMLOCK_BYTES
      ? ok('locked memory', `${whose} limit: ${lockedText}`)
      : problem(
          'locked memory',
          `${whose} limit: ${lockedText}`,
          'LimitMEMLOCK=8M in the unit, or ulimit -l 8192',
        ),
    files >= LEAST_FILES
      ? ok('open files', `${whose} limit: ${files}`)
      : note(
          'open files',
          `${whose} limit: ${files}, enough for some ${Math.floor(files / 10)} guests`,
          'LimitNOFILE=65536 in the unit, or ulimit -n 65536',
        ),
  ];
}

/** Who can put a socket of his own where the VMMs look for ours, and who can reach it. */
export function checkFolder(host: Host, folder: string): Check {
  const name = 'socket folder';
  const stat = host.stat(folder);
  if (stat === undefined) return problem(name, `${folder} is not there`, `sudo install -d -m 0755 ${folder}`);
  const mode = stat.mode & 0o7777;
  const text = `${folder}, mode ${mode.toString(8).padStart(4, '0')}`;
  if ((mode & 0o002) !== 0 && (mode & 0o1000) === 0)
    return problem(name, `${text}: anyone can replace its sockets`, `sudo chmod o-w ${folder}`);
  if ((mode & 0o002) !== 0)
    return note(
      name,
      `${text}: anyone can make a socket before the daemon does`,
      'listen below /run/vhost-rngd',
    );
  return (mode & 0o011) === 0
    ? note(name, `${text}: only its owner can reach the sockets`, `sudo chmod g+x ${folder}`)
    : ok(name, text);
}

const APPARMOR_ENABLED = '/sys/module/apparmor/parameters/enabled';
const LIBVIRT_PROFILE = '/etc/apparmor.d/abstractions/libvirt-qemu';
const LIBVIRT_LOCAL = '/etc/apparmor.d/local/abstractions/libvirt-qemu';

/** Whether QEMU under libvirt may reach the sockets in these folders. */
export function checkAppArmor(host: Host, folders: readonly string[]): Check {
  const name = 'AppArmor';
  if (host.text(APPARMOR_ENABLED)?.trim() !== 'Y') return ok(name, 'confines nothing here');
  if (host.stat(LIBVIRT_PROFILE) === undefined) return ok(name, 'libvirt has no profile here');
  const local = host.text(LIBVIRT_LOCAL) ?? '';
  const missing = folders.filter((folder) => !local.includes(`${folder}/`));
  if (missing.length === 0) return ok(name, `${LIBVIRT_LOCAL} has the sockets`);
  const lines = missing.map((folder) => `  ${folder}/*.sock rw,`).join('\\n');
  return problem(
    name,
    `libvirt's guests may not open sockets in ${missing.join(', ')}`,
    `printf '${lines}\\n' | sudo tee -a ${LIBVIRT_LOCAL}`,
  );
}

/** A restart of the daemon outside of systemd is the end of such a guest. */
export async function checkQemu(host: Host): Promise<Check> {
  const said = await host.run('qemu-system-x86_64', ['--version']);
  const version = /version (\d+)\.\S+/.exec(said ?? '');
  if (version === null) return note('QEMU', 'qemu-system-x86_64 is not here');
  return Number(version[1]) >= 9
    ? note('QEMU', `${version[0]}, which ends when its back-end goes: do not stop the daemon under a guest`)
    : note('QEMU', `${version[0]}, whose guests are without entropy once their back-end has gone`);
}

export async function checkSystemd(host: Host): Promise<Check> {
  const name = 'systemd';
  if (host.stat('/run/systemd/system') === undefined) return ok(name, 'does not run here');
  const active = (
    await host.run('systemctl', ['show', '-p', 'ActiveState', '--value', 'vhost-rngd.service'])
  )?.trim();
  return active === 'active'
    ? ok(name, 'vhost-rngd.service is active')
    : note(
        name,
        `vhost-rngd.service is ${active ?? 'not known'}`,
        'sudo systemctl enable --now vhost-rngd.socket',
      );
}

export function checkEpollWatches(host: Host): Check {
  const name = 'epoll watches';
  const most = Number(host.text('/proc/sys/fs/epoll/max_user_watches') ?? 0);
  return most < MANY_EPOLL_WATCHES
    ? ok(name, `fs.epoll.max_user_watches is ${most}`)
    : note(
        name,
        `fs.epoll.max_user_watches is ${most}: a hostile VMM can slow its signals down by 0.1 s`,
        'sysctl fs.epoll.max_user_watches=65536, where VMMs are not trusted',
      );
}
