// doctor: looks over a host and its daemon, and names the fixes.
import { dirname } from 'node:path';
import { Fault } from '../../protocol/fault.js';
import { readConfig } from '../config/file.js';
import { joinSettings, type Settings } from '../config/settings.js';
import { type Status, StatusShape } from '../control/shapes.js';
import { checkSources } from '../entropy/source-check.js';
import { ExitStatus } from './exit-status.js';
import type { Host } from './host.js';
import {
  type Check,
  checkAppArmor,
  checkEpollWatches,
  checkFolder,
  checkHwrng,
  checkKernelPool,
  checkLimits,
  checkNode,
  checkQemu,
  checkSystemd,
  note,
  ok,
  problem,
} from './host-checks.js';
import { type Output, printable, toned } from './output.js';
import type { Outcome, Session } from './session.js';

/** The configuration of the service. */
export const SERVICE_CONFIG = '/etc/vhost-rngd/config.toml';

/** Looks at everything. `configFile`: what --config says. */
export async function doctor(session: Session, host: Host, configFile: string | undefined): Promise<Outcome> {
  const checks = await examine(session, host, configFile);
  session.output.out(
    session.json
      ? `${JSON.stringify({ checks })}\n`
      : checks.map((check) => checkText(session.output, check)).join(''),
  );
  return checks.some(({ verdict }) => verdict === 'problem') ? ExitStatus.Degraded : ExitStatus.Ok;
}

async function examine({ client }: Session, host: Host, configFile: string | undefined): Promise<Check[]> {
  const answer = await client.json(StatusShape, ['GET', '/v1/status']);
  const status = answer instanceof Fault ? answer : answer.value;
  const pid = status instanceof Fault ? undefined : status.pid;
  const config = await checkConfig(host, configFile);
  const folders = socketFolders(status, config.settings);
  return [
    checkNode(host),
    checkKernelPool(host),
    checkHwrng(host),
    ...config.checks,
    ...checkDaemon(status),
    ...checkLimits(host, pid),
    ...folders.map((folder) => checkFolder(host, folder)),
    checkAppArmor(host, folders),
    checkEpollWatches(host),
    await checkQemu(host),
    await checkSystemd(host),
  ];
}

function checkDaemon(status: Status | Fault): Check[] {
  if (status instanceof Fault) return [problem('daemon', 'none answers', status.message)];
  const { version, pid, health, devices } = status;
  const connected = devices.filter(({ frontEnds }) => frontEnds.length > 0).length;
  const running = ok(
    'daemon',
    `vhost-rngd ${version}, pid ${pid}: ${connected} of ${devices.length} devices have a guest`,
  );
  const reasons = health.reasons.map((reason) =>
    problem('health', reason, 'vhost-rngctl status, and the README, "When something is wrong"'),
  );
  return [running, ...(reasons.length === 0 ? [ok('health', health.status)] : reasons)];
}

/** Reads the configuration as the daemon would, and looks at its sources as the daemon does before it starts. */
async function checkConfig(
  host: Host,
  configFile: string | undefined,
): Promise<{ readonly checks: Check[]; readonly settings: Settings | undefined }> {
  const name = 'configuration';
  const path = configFile ?? SERVICE_CONFIG;
  if (configFile === undefined && host.stat(path) === undefined)
    return { checks: [note(name, `no ${path}: options alone say what is served`)], settings: undefined };
  const config = readConfig(path);
  const nothing = { general: {}, control: {}, devices: [], fd: undefined, configFile: path };
  const settings = config instanceof Fault ? config : joinSettings(nothing, config);
  if (settings instanceof Fault)
    return {
      checks: [
        problem(
          name,
          settings.message,
          `correct it, and try it with vhost-rngd --check-config --config=${path}`,
        ),
      ],
      settings: undefined,
    };
  const refused = await checkSources(settings.sources);
  const sources = settings.sources.map(({ text }) => text).join(', ');
  const found =
    refused === undefined
      ? ok('sources', `${sources} can be opened by this user`)
      : problem('sources', refused.message, 'see above');
  return { checks: [ok(name, `${path} is in order`), found], settings };
}

/** Folders of the sockets that are served or configured. */
function socketFolders(status: Status | Fault, settings: Settings | undefined): string[] {
  const served = status instanceof Fault ? [] : status.devices.flatMap(({ socket }) => socket ?? []);
  const configured = settings?.devices.map(({ socketPath }) => socketPath) ?? [];
  return [...new Set([...served, ...configured].map((path) => dirname(path)))].sort();
}

const VERDICTS = { ok: ['good', 'ok'], note: ['warn', 'note'], problem: ['bad', 'problem'] } as const;

function checkText(output: Output, { name, verdict, found, fix }: Check): string {
  const [tone, word] = VERDICTS[verdict];
  const line = `${toned(output, tone, word.padEnd(8))}${name}: ${printable(found)}\n`;
  return fix === null ? line : `${line}        ${printable(fix)}\n`;
}
