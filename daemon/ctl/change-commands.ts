// Commands that change something while guests run: devices, sources, and the reading of the configuration.
import type { Command } from 'commander';
import { InvalidArgumentError } from 'commander';
import * as v from 'valibot';
import { Fault } from '../../protocol/fault.js';
import { DEFAULT_PERIOD_MS } from '../config/device-settings.js';
import {
  type DevicePatch,
  DeviceShape,
  type DeviceStatus,
  EnabledShape,
  type NewDevice,
  ReloadShape,
} from '../control/shapes.js';
import { devicePath, type Run } from './look-commands.js';
import { type Outcome, type Session, show } from './session.js';
import { deviceText, limitText } from './status-view.js';

const Nothing = v.strictObject({});

/** Options of a device as commander gives them. */
interface DeviceOptionValues {
  readonly maxBytes?: number;
  readonly period?: number;
  readonly burstBytes?: number;
  /** False for --no-limit. */
  readonly limit: boolean;
  readonly weight?: number;
  readonly source?: readonly string[];
  readonly daemonSources?: boolean;
  readonly mix?: boolean;
  readonly socketMode?: string;
  readonly socketGroup?: string;
  readonly memory?: NewDevice['memory'];
  readonly memSlots?: number;
  readonly connections?: number;
}

/** Adds them to the program. */
export function addDeviceCommands(program: Command, run: Run): void {
  const set = program
    .command('set')
    .argument('<name>')
    .description('change the limit, the weight or the sources of a device; what is not said stays');
  deviceOptions(set)
    .option('--daemon-sources', "draw from the daemon's sources, also when those change")
    .action(run((session, name) => setDevice(session, name, set.opts<DeviceOptionValues>())));
  const add = program
    .command('add')
    .argument('<name>')
    .argument('<socket>', 'path on which the device listens for its VMM')
    .description('add a device');
  deviceOptions(add)
    .option('--socket-mode <octal>', 'mode of the socket file')
    .option('--socket-group <group>', 'group of the socket file, by name or number')
    .option('--memory <policy>', 'guest memory whose file can be shrunk: guard, require-sealed or trust')
    .option('--mem-slots <n>', 'offer CONFIGURE_MEM_SLOTS with so many slots', integerFrom(0))
    .option('--connections <n>', 'serve so many front-ends at a time', integerFrom(1))
    .action(run((session, name, socket) => addDevice(session, [name, socket], add.opts())));
  program
    .command('remove')
    .argument('<name>')
    .description('remove a device; its guest is disconnected')
    .action(
      run((session, name) =>
        show(session, Nothing, ['DELETE', devicePath(name)], () => `${name} is removed\n`),
      ),
    );
  program
    .command('pause')
    .argument('<name>')
    .description('hold all requests of a device; its guest stays connected, and waits')
    .action(run((session, name) => patch(session, name, { paused: true })));
  program
    .command('resume')
    .argument('<name>')
    .description('serve a device that was paused')
    .action(run((session, name) => patch(session, name, { paused: false })));
  program
    .command('reload')
    .description('read the configuration file again, as SIGHUP does')
    .action(run(reload));
}

/** Tries failed sources again. */
export function enableSources(session: Session, source?: string): Promise<Outcome> {
  const only = source === undefined ? undefined : { source };
  return show(session, EnabledShape, ['POST', '/v1/sources/enable', only], ({ enabled }) =>
    enabled.length === 0 ? 'no source had failed\n' : `tried again: ${enabled.join(', ')}\n`,
  );
}

/** Reads a number for commander; what is none is refused with the option's name. The daemon knows the other end of the range. */
export function integerFrom(least: 0 | 1): (text: string) => number {
  return (text) => {
    if (!/^\d+$/.test(text)) throw new InvalidArgumentError(`expected an integer from ${least}.`);
    return Number(text);
  };
}

export function collect(value: string, earlier: readonly string[] = []): readonly string[] {
  return [...earlier, value];
}

function deviceOptions(command: Command): Command {
  return command
    .option('--max-bytes <n>', 'give at most so many bytes in any period', integerFrom(1))
    .option('--period <ms>', 'length of the period', integerFrom(1))
    .option('--burst-bytes <n>', 'so many bytes more, once in the life of the device', integerFrom(0))
    .option('--no-limit', 'give what it asks for')
    .option('--weight <n>', "the device's part of the total against the others', 1 to 1000", integerFrom(1))
    .option('--source <spec>', 'draw from this source; may be repeated, best first', collect)
    .option('--mix', "mix the kernel's bytes into those of the sources")
    .option('--no-mix', 'do not');
}

/** The limit that the options ask for, on top of `before`; undefined: they say nothing of it. */
function wantedLimit(
  values: DeviceOptionValues,
  before: DeviceStatus['limit'],
): NewDevice['limit'] | Fault | undefined {
  const { maxBytes, period, burstBytes, limit } = values;
  const said = maxBytes !== undefined || period !== undefined || burstBytes !== undefined;
  if (!limit) return said ? usage('expected a limit or --no-limit, got both') : null;
  if (!said) return undefined;
  const most = maxBytes ?? before?.maxBytes;
  if (most === undefined) {
    const given = period === undefined ? '--burst-bytes' : '--period';
    return usage(`expected --max-bytes with ${given}, since there is no limit yet`);
  }
  return {
    maxBytes: most,
    periodMs: period ?? before?.periodMs ?? DEFAULT_PERIOD_MS,
    burstBytes: burstBytes ?? before?.burstBytes ?? 0,
  };
}

async function setDevice(session: Session, name = '', values: DeviceOptionValues): Promise<Outcome> {
  const answer = await session.client.json(DeviceShape, ['GET', devicePath(name)]);
  if (answer instanceof Fault) return answer;
  const limit = wantedLimit(values, answer.value.limit);
  if (limit instanceof Fault) return limit;
  const { weight, source, daemonSources = false, mix } = values;
  if (daemonSources && source !== undefined) return usage('expected --source or --daemon-sources, got both');
  const wanted: DevicePatch = {
    ...(limit !== undefined && { limit }),
    ...(weight !== undefined && { weight }),
    ...(source !== undefined && { sources: [...source] }),
    ...(daemonSources && { sources: null }),
    ...(mix !== undefined && { mix }),
  };
  if (Object.keys(wanted).length === 0)
    return usage('expected something to set: --max-bytes, --no-limit, --weight, --source or --mix');
  return patch(session, name, wanted);
}

async function patch(session: Session, name: string | undefined, wanted: DevicePatch): Promise<Outcome> {
  return show(session, DeviceShape, ['PATCH', devicePath(name), wanted], (device) => {
    const { weight, sources, mix, limit, state } = device;
    const paused = state === 'paused' ? ', paused' : '';
    const drawn = `${sources.join(', ')}${mix ? ', mixed' : ''}`;
    return `${device.name}: limit ${limitText(limit)}, weight ${weight}, sources ${drawn}${paused}\n`;
  });
}

async function addDevice(
  session: Session,
  [name = '', socket = '']: readonly (string | undefined)[],
  values: DeviceOptionValues,
): Promise<Outcome> {
  const limit = wantedLimit(values, null);
  if (limit instanceof Fault) return limit;
  const { weight, source, mix, socketMode, socketGroup, memory, memSlots, connections } = values;
  const wanted: NewDevice = {
    name,
    socket,
    ...(limit !== undefined && { limit }),
    ...(weight !== undefined && { weight }),
    ...(source !== undefined && { sources: [...source] }),
    ...(mix !== undefined && { mix }),
    ...(socketMode !== undefined && { socketMode }),
    ...(socketGroup !== undefined && { socketGroup }),
    ...(memory !== undefined && { memory }),
    ...(memSlots !== undefined && { memSlots }),
    ...(connections !== undefined && { connections }),
  };
  return show(session, DeviceShape, ['POST', '/v1/devices', wanted], (device) =>
    deviceText(session.output, device),
  );
}

async function reload(session: Session): Promise<Outcome> {
  return show(session, ReloadShape, ['POST', '/v1/reload'], ({ changed, needsRestart }) => {
    const lines = changed.length === 0 ? ['nothing has changed'] : changed.map((one) => `changed: ${one}`);
    return [...lines, ...needsRestart.map((one) => `needs a restart: ${one}`)].join('\n').concat('\n');
  });
}

function usage(message: string): Fault {
  return new Fault('request', 'usage', message);
}
