// What a reload has to do: the difference of two configurations, into what can be made while guests run and what cannot.
//
// It compares what the file said before with what it says now, so what an operator has changed over the control socket stays.
import { changeText, limitText } from '../change-text.js';
import type { DeviceChange } from '../data-plane-messages.js';
import { MIXED_IN } from '../entropy/pools.js';
import type { DeviceSettings } from './device-settings.js';
import type { Settings } from './settings.js';

export interface ReloadPlan {
  readonly add: readonly DeviceSettings[];
  readonly remove: readonly string[];
  readonly change: readonly { readonly name: string; readonly change: DeviceChange }[];
  readonly changesTotal: boolean;
  /** What is made, in words. */
  readonly changed: readonly string[];
  /** What has to wait for a restart, in words. */
  readonly needsRestart: readonly string[];
}

/** Settings of a device whose change would take it from its guest. */
const FIXED: readonly (keyof DeviceSettings)[] = [
  'socketPath',
  'socketMode',
  'socketGroup',
  'memoryPolicy',
  'memSlots',
  'connections',
];

/** What a reload finds. */
export interface Present {
  /** The names of the devices that are served now. */
  readonly served: ReadonlySet<string>;
  /** What the daemon was started with: its sources run until a restart. */
  readonly started: Settings;
}

/** The way from `old`, which the file said before, to `next`. */
export function planReload(old: Settings, next: Settings, { served, started }: Present): ReloadPlan {
  const running = new Set(started.sources.map(({ text }) => text));
  const before = new Map(old.devices.map((device) => [device.name, device]));
  const after = new Map(next.devices.map((device) => [device.name, device]));
  const add = next.devices
    .filter(({ name }) => !before.has(name) && !served.has(name))
    .map((device) =>
      canDraw(device, running) ? device : { ...device, entropy: started.deviceDefaults.entropy },
    );
  const remove = old.devices.map(({ name }) => name).filter((name) => !after.has(name) && served.has(name));
  const both = next.devices.flatMap((device) => {
    const was = before.get(device.name);
    return was === undefined || !served.has(device.name) ? [] : [{ was, is: device }];
  });
  const change = both.flatMap(({ was, is }) => changeOf(was, is, running));
  const fixed = both.flatMap(({ was, is }) =>
    FIXED.filter((key) => was[key] !== is[key]).map((key) => `device ${is.name}: ${kebab(key)}`),
  );
  return {
    add,
    remove,
    change,
    changesTotal: !same(old.total, next.total),
    changed: [
      ...add.map(({ name }) => `device ${name} added`),
      ...remove.map((name) => `device ${name} removed`),
      ...change.map(({ name, change }) => `device ${name}: ${changeText(change)}`),
      ...whileRunning(old, next),
    ],
    needsRestart: [...fixed, ...afterRestart(started, next)],
  };
}

function canDraw({ entropy }: DeviceSettings, running: ReadonlySet<string>): boolean {
  const needed = [...entropy.specs, ...(entropy.mix ? [MIXED_IN] : [])];
  return needed.every((text) => running.has(text));
}

/** What a device is to change while it serves; sources that do not run yet have to wait for a restart. */
function changeOf(
  was: DeviceSettings,
  is: DeviceSettings,
  running: ReadonlySet<string>,
): { name: string; change: DeviceChange }[] {
  const change: DeviceChange = {
    ...(!same(was.limit, is.limit) && { limit: is.limit }),
    ...(was.weight !== is.weight && { weight: is.weight }),
    ...(!same(was.entropy, is.entropy) && canDraw(is, running) && { entropy: is.entropy }),
  };
  return Object.keys(change).length === 0 ? [] : [{ name: is.name, change }];
}

function whileRunning(old: Settings, next: Settings): string[] {
  return [
    ...(same(old.total, next.total) ? [] : [`in total ${limitText(next.total)}`]),
    ...(old.logLevel === next.logLevel ? [] : [`log-level ${next.logLevel}`]),
    ...(same(old.control.admins, next.control.admins) ? [] : ['control.admins']),
    ...(same(old.control.readers, next.control.readers) ? [] : ['control.readers']),
    ...(same(old.deviceDefaults, next.deviceDefaults)
      ? []
      : ['what holds for devices that are added from now on']),
  ];
}

function afterRestart(started: Settings, next: Settings): string[] {
  return [
    ...(same(started.sources, next.sources) ? [] : ['sources']),
    ...(started.busyPollUs === next.busyPollUs ? [] : ['busy-poll-us']),
    ...(started.logFormat === next.logFormat ? [] : ['log-format']),
    ...(started.stateFile === next.stateFile ? [] : ['state-file']),
    ...(started.control.socketPath === next.control.socketPath ? [] : ['control.socket']),
    ...(started.control.socketGroup === next.control.socketGroup ? [] : ['control.group']),
  ];
}

/** Both are plain data whose keys are made in the same order. */
function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

function kebab(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
