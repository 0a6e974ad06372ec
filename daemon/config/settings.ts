// What the daemon is to do, from the command line and the configuration file together.
//
// Precedence: what a [[device]] says for itself; then an option; then the top of the file; then the default. Options that
// name sockets replace the devices of the file.
import { Fault } from '../../protocol/fault.js';
import { userId } from '../control/peers.js';
import type { SourceSpec } from '../entropy/source-spec.js';
import type { Limit } from '../limiter.js';
import type { LogFormat } from '../log.js';
import type { LogLevel } from '../rng-device.js';
import {
  type DeviceDefaults,
  type DeviceSettings,
  deviceSettings,
  limitOf,
  type Refuse,
  SourceSet,
} from './device-settings.js';
import type { ReadConfig } from './file.js';
import type { ControlTable, DeviceTable, General } from './file-schema.js';
import type { KeyPath } from './toml-lines.js';

/** The control socket, and users by number. */
export interface ControlSettings {
  readonly socketPath: string | undefined;
  readonly socketGroup: string | undefined;
  readonly admins: readonly number[];
  readonly readers: readonly number[] | undefined;
}

/** Everything, checked and complete. */
export interface Settings {
  readonly devices: readonly DeviceSettings[];
  /** An inherited socket instead of paths. */
  readonly fd: number | undefined;
  /** What holds for a device that says nothing else; for an inherited socket, and for devices that are added later. */
  readonly deviceDefaults: DeviceDefaults;
  /** All that any device draws from, those of most devices first. */
  readonly sources: readonly SourceSpec[];
  /** What all devices together may deliver. */
  readonly total: Limit | undefined;
  /** Leave the process open to debuggers and core files. */
  readonly debug: boolean;
  readonly allowTestSources: boolean;
  readonly busyPollUs: number;
  readonly logFormat: LogFormat;
  readonly logLevel: LogLevel;
  readonly control: ControlSettings;
  readonly stateFile: string | undefined;
}

/** What the command line says; each value is checked, and what is not said is not there. */
export interface CommandLine {
  readonly general: General;
  readonly control: ControlTable;
  readonly devices: readonly { readonly name: string; readonly socketPath: string }[];
  readonly fd: number | undefined;
  readonly configFile: string | undefined;
}

/** Joins both; a fault says what does not fit together. */
export function joinSettings(line: CommandLine, config: ReadConfig | undefined): Settings | Fault {
  const file = config?.file ?? {};
  const { device: tables = [], control: controlTable, ...fileGeneral } = file;
  const refuse: Refuse = (path, message) =>
    config !== undefined && path.every((_, i) => hasPath(file, path.slice(0, i + 1)))
      ? config.wrong(path, message)
      : new Fault('daemon', 'usage', message);
  const general = { ...fileGeneral, ...line.general };
  const sources = new SourceSet(general['allow-test-sources'] ?? false);
  const defaults = deviceSettings(general, sources, refuse);
  if (defaults instanceof Fault) return defaults;
  const total = limitOf(general, ['total-max-bytes', 'total-period'], refuse);
  if (total instanceof Fault) return total;
  const named = line.fd !== undefined || line.devices.length > 0;
  const devices = named
    ? line.devices.map((device) => ({ ...defaults, ...device }))
    : fromTables(tables, (table, at) => deviceSettings({ ...general, ...table }, sources, at), refuse);
  if (devices instanceof Fault) return devices;
  const control = controlSettings({ ...controlTable, ...line.control }, refuse);
  if (control instanceof Fault) return control;
  const clash = devices.find(({ socketPath }) => socketPath === control.socketPath);
  if (clash !== undefined)
    return refuse(['control', 'socket'], `expected a path of its own, got that of ${clash.name}`);
  if (
    config !== undefined &&
    devices.length === 0 &&
    line.fd === undefined &&
    control.socketPath === undefined
  )
    return config.wrong([], 'expected at least one [[device]], or a control socket to add some over');
  const poll = general['busy-poll-us'];
  return {
    devices,
    fd: line.fd,
    deviceDefaults: defaults,
    sources: sources.specs,
    total,
    debug: general.debug ?? false,
    allowTestSources: general['allow-test-sources'] ?? false,
    busyPollUs: poll === 'auto' ? 0 : (poll ?? 0),
    logFormat: general['log-format'] ?? 'text',
    logLevel: general['log-level'] ?? 'info',
    control,
    stateFile: general['state-file'],
  };
}

function hasPath(value: unknown, path: KeyPath): boolean {
  const found = path.reduce<unknown>(
    (inner, key) => (inner as Record<string | number, unknown> | undefined)?.[key],
    value,
  );
  return found !== undefined;
}

/** The devices of the file, each with what it says for itself in front of what stands at the top. */
function fromTables(
  tables: readonly DeviceTable[],
  complete: (table: DeviceTable, refuse: Refuse) => DeviceDefaults | Fault,
  refuse: Refuse,
): DeviceSettings[] | Fault {
  const devices: DeviceSettings[] = [];
  for (const [i, table] of tables.entries()) {
    const { name, 'socket-path': socketPath } = table;
    if (devices.some((other) => other.name === name))
      return refuse(['device', i, 'name'], `expected each name once, got ${name} twice`);
    if (devices.some((other) => other.socketPath === socketPath))
      return refuse(['device', i, 'socket-path'], `expected each socket-path once, got ${socketPath} twice`);
    const own = complete(table, (path, message) => refuse(['device', i, ...path], message));
    if (own instanceof Fault) return own;
    devices.push({ ...own, ownSources: table.sources !== undefined, name, socketPath });
  }
  return devices;
}

function controlSettings(table: ControlTable, refuse: Refuse): ControlSettings | Fault {
  const admins = userIds(table.admins ?? []);
  if (admins instanceof Fault) return refuse(['control', 'admins'], admins.message);
  const readers = table.readers && userIds(table.readers);
  if (readers instanceof Fault) return refuse(['control', 'readers'], readers.message);
  return { socketPath: table.socket, socketGroup: table.group, admins, readers };
}

function userIds(users: readonly string[]): number[] | Fault {
  const ids: number[] = [];
  for (const user of users) {
    const id = userId(user);
    if (id instanceof Fault) return id;
    ids.push(id);
  }
  return ids;
}
