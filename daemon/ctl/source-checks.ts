// What doctor looks at of sources: the devices of this host, and what a configuration names.
import { isIP } from 'node:net';
import { lookAtSources } from '../entropy/source-check.js';
import type { SourceSpec } from '../entropy/source-spec.js';
import { type Check, note, ok, problem, shellWord } from './check.js';
import type { Host } from './host.js';
import { allows, type HostUser, ownersText, Right, thisUser } from './host-user.js';

const RANDOM = '/dev/random';
const HWRNG = '/dev/hwrng';
const HWRNG_CURRENT = '/sys/class/misc/hw_random/rng_current';
const HWRNG_AVAILABLE = '/sys/class/misc/hw_random/rng_available';
const UDEV_RULE = 'KERNEL=="hw_random", GROUP="vhost-rngd", MODE="0440"';
const LET_READ = `echo '${UDEV_RULE}' | sudo tee /etc/udev/rules.d/90-vhost-rngd.rules && sudo udevadm control --reload && sudo udevadm trigger --name-match=hwrng`;

/** Where the package puts it. */
const EGD_DROP_IN = '/usr/share/doc/vhost-rngd/examples/egd-over-tcp.conf';

export function checkKernelPool(host: Host): Check {
  if (host.canRead(RANDOM)) return ok(RANDOM, 'can be read');
  return host.stat(RANDOM) === undefined
    ? problem(RANDOM, 'is not there', `sudo mknod -m 0666 ${RANDOM} c 1 8`)
    : problem(RANDOM, `cannot be read by ${thisUser(host).name}`, `sudo chmod 0666 ${RANDOM}`);
}

/**
 * A generator that is there but not for the daemon is a problem only where the daemon is to draw from it; `wanted`: it is. None at all
 * is how many machines are.
 */
export function checkHwrng(host: Host, daemon: HostUser | undefined, wanted: boolean): Check {
  const bad = wanted ? problem : note;
  const stat = host.stat(HWRNG);
  if (stat === undefined)
    return bad(
      HWRNG,
      'is not there: this kernel has no hardware generator',
      'sudo modprobe virtio_rng || sudo modprobe tpm',
    );
  const current = host.text(HWRNG_CURRENT)?.trim() ?? '';
  if (current === '' || current === 'none') {
    const [available = ''] = (host.text(HWRNG_AVAILABLE) ?? '').trim().split(/\s+/);
    return bad(
      HWRNG,
      'has no generator behind it',
      available === ''
        ? 'sudo modprobe virtio_rng || sudo modprobe tpm'
        : `echo ${available} | sudo tee ${HWRNG_CURRENT}`,
    );
  }
  const user = daemon ?? thisUser(host);
  if (allows(stat, user, Right.Read)) return ok(HWRNG, `is ${current}, and ${user.name} may read it`);
  return bad(HWRNG, `is ${current}, and ${user.name} may not read it (${ownersText(host, stat)})`, LET_READ);
}

/** Each source as the daemon looks at it before it starts: opened in a thread, and not waited for. */
export async function checkConfiguredSources(
  host: Host,
  specs: readonly SourceSpec[],
  daemon: HostUser | undefined,
): Promise<Check[]> {
  const checks: Check[] = [];
  for (const spec of specs) {
    const refused = await lookAtSources([spec]);
    const name = `source ${spec.text}`;
    if (refused === undefined) checks.push(ok(name, 'can be opened'));
    else if (refused === 'late')
      checks.push(problem(name, 'does not open within 1 s: its driver hangs', 'sudo dmesg | tail -n 50'));
    else if (isOnlyForDaemon(host, spec, daemon))
      checks.push(ok(name, `is for ${daemon?.name ?? ''} to open, not for ${thisUser(host).name}`));
    else checks.push(problem(name, refused.message, fixOf(spec)));
  }
  return checks;
}

/** This user may be kept out of what the daemon may read. */
function isOnlyForDaemon(host: Host, spec: SourceSpec, daemon: HostUser | undefined): boolean {
  if (daemon === undefined || daemon.uid === host.uid || !('path' in spec)) return false;
  const stat = host.stat(spec.path);
  return stat !== undefined && !host.canRead(spec.path) && allows(stat, daemon, Right.Read);
}

function fixOf(spec: SourceSpec): string | null {
  if (spec.kind === 'hwrng' && spec.path === HWRNG) return LET_READ;
  return spec.kind === 'jitter' ? 'sudo apt-get install -y libjitterentropy3' : null;
}

/** Opens the network to the EGD server that a reason of health is about; undefined: it is about something else. */
export function networkFix(reason: string, unit: string): string | undefined {
  const [, host = ''] = /^source egd:tcp:\[?(\S+?)\]?:\d+ is .*egd-over-tcp\.conf/.exec(reason) ?? [];
  if (isIP(host) === 0) return undefined;
  const file = shellWord(`/etc/systemd/system/${unit}.d/egd-over-tcp.conf`);
  const address = `sudo sed -i 's/^IPAddressAllow=.*/IPAddressAllow=${host}/' ${file}`;
  return `sudo install -D -m 0644 ${EGD_DROP_IN} ${file} && ${address} && sudo systemctl daemon-reload && sudo systemctl restart ${shellWord(unit)}`;
}
