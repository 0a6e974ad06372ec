// What a reload has to do: the difference of two configurations, into what can be made while guests run and what cannot.
//
// It compares what the file said before with what it says now, so what an operator has changed over the control socket stays.
import { changeText, limitText } from '../change-text.js';
import type { DeviceChange } from '../data-plane-messages.js';
import type { DeviceSettings } from './device-settings.js';
import type { Settings } from './settings.js';

export interface ReloadPlan {
  readonly add: readonly DeviceSettings[];
  readonly remove: readonly string[];
  readonly change: readonly { readonly name: string; readonly change: DeviceChange }[];
  readonly changesTotal: boolean;
  /** What the daemon draws from now, in order; undefined: as before. */
  readonly sources: readonly string[] | undefined;
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
  /** What the daemon was started with. */
  readonly started: Settings;
}

/** The way from `old`, which the file said before, to `next`. */
export function planReload(old: Settings, next: Settings, { served, started }: Present): ReloadPlan {
  const before = new Map(old.devices.map((device) => [device.name, device]));
  const after = new Map(next.devices.map((device) => [device.name, device]));
  const gone = old.devices.filter(({ name }) => !after.has(name) && served.has(name));
  const fresh = next.devices.filter(({ name }) => !before.has(name) && !served.has(name));
  // The same socket under another name: it is one device, whose guest would lose it.
  const renamed = gone.flatMap((was) =>
    fresh
      .filter(({ socketPath }) => socketPath === was.socketPath)
      .map((is) => ({ was: was.name, is: is.name })),
  );
  const add = fresh.filter(({ name }) => !renamed.some(({ is }) => is === name));
  const remove = gone.map(({ name }) => name).filter((name) => !renamed.some(({ was }) => was === name));
  const both = next.devices.flatMap((device) => {
    const was = before.get(device.name);
    return was === undefined || !served.has(device.name) ? [] : [{ was, is: device }];
  });
  const change = both.flatMap(({ was, is }) => changeOf(was, is));
  const fixed = both.flatMap(({ was, is }) =>
    FIXED.filter((key) => was[key] !== is[key]).map((key) => `device ${is.name}: ${kebab(key)}`),
  );
  return {
    add,
    remove,
    change,
    changesTotal: !same(old.total, next.total),
    sources: orderOf(old, next),
    changed: [
      ...add.map(({ name }) => `device ${name} added`),
      ...remove.map((name) => `device ${name} removed`),
      ...change.map(({ name, change }) => `device ${name}: ${changeText(change)}`),
      ...whileRunning(old, next),
    ],
    needsRestart: [
      ...renamed.map(({ was, is }) => `device ${was}: name ${is}`),
      ...fixed,
      ...afterRestart(started, next),
    ],
  };
}

/** What the daemon draws from, where that has changed. */
function orderOf(old: Settings, next: Settings): readonly string[] | undefined {
  const { specs } = next.deviceDefaults.entropy;
  return same(old.deviceDefaults.entropy.specs, specs) ? undefined : specs;
}

/** What a device is to change while it serves; one without sources of its own follows the daemon's. */
function changeOf(was: DeviceSettings, is: DeviceSettings): { name: string; change: DeviceChange }[] {
  const follows = !was.ownSources && !is.ownSources && was.entropy.mix === is.entropy.mix;
  const draws = !follows && !same([was.entropy, was.ownSources], [is.entropy, is.ownSources]);
  const change: DeviceChange = {
    ...(!same(was.limit, is.limit) && { limit: is.limit }),
    ...(was.weight !== is.weight && { weight: is.weight }),
    ...(draws && { entropy: is.entropy, ownSources: is.ownSources }),
  };
  return Object.keys(change).length === 0 ? [] : [{ name: is.name, change }];
}

function whileRunning(old: Settings, next: Settings): string[] {
  const order = orderOf(old, next);
  return [
    ...(order === undefined ? [] : [`sources ${order.join(', ')}`]),
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
  const credited = next.sources.filter(({ text, minEntropy }) =>
    started.sources.some((source) => source.text === text && source.minEntropy !== minEntropy),
  );
  return [
    ...credited.map(({ text }) => `source ${text}: min-entropy`),
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
