// doctor: looks over a host and its daemon, and names the fixes. It changes nothing, and waits for nothing for long.
import { Fault } from '../../protocol/fault.js';
import { readConfig } from '../config/file.js';
import { joinSettings, type Settings } from '../config/settings.js';
import { isOnlyStarting } from '../control/health.js';
import { type Status, StatusShape } from '../control/shapes.js';
import { SERVICE_UNIT } from '../systemd/unit-names.js';
import { type Check, note, ok, problem, shellWord } from './check.js';
import { ControlClient } from './client.js';
import { ExitStatus } from './exit-status.js';
import type { Host } from './host.js';
import {
  checkAppArmor,
  checkEpollWatches,
  checkGuestMemory,
  checkLimits,
  checkNode,
  checkQemu,
} from './host-checks.js';
import { daemonUser } from './host-user.js';
import { type Output, printable, toned } from './output.js';
import type { Outcome, Session } from './session.js';
import { checkControlSocket, checkFolder, checkStaleSockets, foldersOf } from './socket-checks.js';
import { checkConfiguredSources, checkHwrng, checkKernelPool, networkFix } from './source-checks.js';
import { checkStateFile } from './state-check.js';
import { checkSystemd, startOf } from './unit-checks.js';
import { askSystemd, type Systemd, unitName } from './units.js';

/** The configuration of the service. */
export const SERVICE_CONFIG = '/etc/vhost-rngd/config.toml';
/** A daemon that answers at all does so within 50 ms. Ours. */
const REPLY_TIMEOUT_MS = 3000;
/** Where systemd does not run, or does not say. */
const NOTHING_KNOWN: Systemd = { service: undefined, socket: undefined, paths: new Set() };

/** Looks at everything. `configFile`: what --config says. */
export async function doctor(session: Session, host: Host, configFile: string | undefined): Promise<Outcome> {
  const checks = await examine(session.client.socketPath, host, configFile);
  session.output.out(
    session.json
      ? `${JSON.stringify({ checks })}\n`
      : checks.map((check) => checkText(session.output, check)).join(''),
  );
  return checks.some(({ verdict }) => verdict === 'problem') ? ExitStatus.Degraded : ExitStatus.Ok;
}

async function examine(controlSocket: string, host: Host, configFile: string | undefined): Promise<Check[]> {
  const client = new ControlClient(controlSocket, REPLY_TIMEOUT_MS);
  const answer = await client.settled(StatusShape, '/v1/status', ({ health }) => isOnlyStarting(health));
  const status = answer instanceof Fault ? undefined : answer.value;
  const pid = status?.pid;
  const user = daemonUser(host, pid);
  const unit = unitName(host, pid, controlSocket);
  const systemd = await askSystemd(host, unit);
  const { service, paths } = typeof systemd === 'string' ? NOTHING_KNOWN : systemd;
  const systemdCheck = checkSystemd(systemd, unit);
  const config = checkConfig(host, configFile, unit);
  const { settings } = config;
  const served = status?.devices.flatMap(({ socket }) => socket ?? []) ?? [];
  const sockets = [...served, ...(settings?.devices.map(({ socketPath }) => socketPath) ?? [])];
  const folders = foldersOf(sockets);
  const own = foldersOf(sockets.filter((path) => !paths.has(path)));
  const specs = [
    ...(settings?.sources.map(({ text }) => text) ?? []),
    ...(status?.sources.map(({ spec }) => spec) ?? []),
  ];
  return [
    checkNode(host),
    checkKernelPool(host),
    checkHwrng(host, user, specs.includes('hwrng:/dev/hwrng')),
    config.check,
    ...(settings?.stateFile === undefined ? [] : [checkStateFile(host, settings.stateFile, unit)]),
    ...(await checkConfiguredSources(host, settings?.sources ?? [], user)),
    checkControlSocket(host, controlSocket, answer instanceof Fault ? answer.message : undefined, {
      start: systemdCheck.fix ?? startOf(unit),
      restart: systemdCheck.fix ?? `sudo systemctl restart ${shellWord(unit)}`,
    }),
    ...(status === undefined ? [] : checkDaemon(status, unit)),
    // Where systemd makes the sockets, the daemon need not be able to.
    ...folders.map((folder) => checkFolder(host, folder, own.includes(folder) ? user : undefined)),
    checkStaleSockets(host, foldersOf([...sockets, controlSocket]), {
      live: served,
      paths,
      pids: [pid, service?.pid].filter((one) => one !== undefined),
      isStarting: service?.active === 'activating',
    }),
    ...checkLimits(host, pid, unit),
    checkGuestMemory(host),
    checkAppArmor(host, folders),
    checkEpollWatches(host),
    await checkQemu(host),
    systemdCheck,
  ];
}

function checkDaemon({ version, pid, health, devices }: Status, unit: string): Check[] {
  const connected = devices.filter(({ frontEnds }) => frontEnds.length > 0).length;
  const running = ok(
    'daemon',
    `vhost-rngd ${version}, pid ${pid}: ${connected} of ${devices.length} devices have a guest`,
  );
  const reasons = health.reasons.map((reason) =>
    problem('health', reason, networkFix(reason, unit) ?? 'vhost-rngctl status'),
  );
  return [running, ...(reasons.length === 0 ? [ok('health', health.status)] : reasons)];
}

/** Reads the configuration as the daemon would: the one that is named, or that of the service for all guests. */
function checkConfig(
  host: Host,
  configFile: string | undefined,
  unit: string,
): { readonly check: Check; readonly settings: Settings | undefined } {
  const name = 'configuration';
  const path = configFile ?? SERVICE_CONFIG;
  if (configFile === undefined && unit !== SERVICE_UNIT)
    return { check: note(name, `not that of ${unit}: --config=FILE names one`), settings: undefined };
  if (configFile === undefined && host.stat(path) === undefined)
    return { check: note(name, `no ${path}: options alone say what is served`), settings: undefined };
  const config = readConfig(path);
  const nothing = { general: {}, control: {}, devices: [], fd: undefined, configFile: path };
  const settings = config instanceof Fault ? config : joinSettings(nothing, config);
  if (!(settings instanceof Fault)) return { check: ok(name, `${path} is in order`), settings };
  const fix = `\${EDITOR:-vi} ${shellWord(path)} && vhost-rngd --check-config --config=${shellWord(path)}`;
  return { check: problem(name, settings.message, fix), settings: undefined };
}

const VERDICTS = { ok: ['good', 'ok'], note: ['warn', 'note'], problem: ['bad', 'problem'] } as const;

function checkText(output: Output, { name, verdict, found, fix }: Check): string {
  const [tone, word] = VERDICTS[verdict];
  const line = `${toned(output, tone, word.padEnd(8))}${printable(name)}: ${printable(found)}\n`;
  return fix === null ? line : `${line}        $ ${printable(fix)}\n`;
}
