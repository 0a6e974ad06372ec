// Changes that were made over the control socket, kept for the next start: what was added, removed and changed beside the
// configuration. Written whole to a new file that then takes the place of the old one.
import { readFileSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import * as v from 'valibot';
import { Fault } from '../protocol/fault.js';
import { deviceName, sourceText } from './config/fields.js';
import { firstIssue } from './config/issue.js';
import type { DeviceDefaults, DeviceSettings } from './config/device-settings.js';
import type { Settings } from './config/settings.js';
import { parseJson } from './control/json.js';
import { type DevicePatch, DevicePatchShape, type NewDevice, NewDeviceShape } from './control/shapes.js';
import type { SourceChoice } from './entropy/pools.js';
import { parseSourceSpec, type SourceSpec } from './entropy/source-spec.js';
import type { Log } from './rng-device.js';
import { chooseSources, type WantedSources } from './source-choice.js';

const StateShape = v.strictObject({
  added: v.array(NewDeviceShape),
  removed: v.array(deviceName),
  changed: v.array(v.strictObject({ name: deviceName, ...DevicePatchShape.entries })),
  /** What the daemon draws from, where that was changed. */
  sources: v.optional(v.array(sourceText)),
});
type State = v.InferOutput<typeof StateShape>;

/** The file of one daemon. */
export class StateFile {
  private readonly path: string;
  private readonly log: Log;
  private state: State;

  private constructor(path: string, log: Log, state: State) {
    this.path = path;
    this.log = log;
    this.state = state;
  }

  /** Reads `path`; a file that is not there yet holds no changes. */
  static read(path: string, log: Log): StateFile | Fault {
    let bytes: Buffer;
    try {
      bytes = readFileSync(path);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? String(error);
      if (code === 'ENOENT') return new StateFile(path, log, { added: [], removed: [], changed: [] });
      return stateFault(path, `reading it failed: ${code}`);
    }
    const value = parseJson(bytes);
    if (value instanceof Fault) return stateFault(path, value.message);
    const checked = v.safeParse(StateShape, value, { abortEarly: true });
    if (checked.success) return new StateFile(path, log, checked.output);
    const { path: at, message } = firstIssue(checked.issues[0]);
    return stateFault(path, `${at.join('.')}: ${message}`);
  }

  /** The configuration with the changes made in it; what no longer fits it is left out. */
  applyTo(configured: Settings): Settings {
    const settings = this.withSources(configured);
    const { added, removed, changed } = this.state;
    const kept = settings.devices.filter(({ name }) => !removed.includes(name));
    const fresh = added.filter(({ name }) => !kept.some((device) => device.name === name));
    const devices = [
      ...kept,
      ...fresh.map((device) => {
        const { deviceDefaults } = settings;
        return settingsOf(device, deviceDefaults, this.chosen(device, deviceDefaults.entropy, settings));
      }),
    ];
    return {
      ...settings,
      devices: devices.map((device) => {
        const change = changed.find(({ name }) => name === device.name);
        if (change === undefined) return device;
        return {
          ...device,
          ...('limit' in change && { limit: change.limit ?? undefined }),
          ...(change.weight !== undefined && { weight: change.weight }),
          entropy: this.chosen(change, device.entropy, settings),
          ...(change.sources !== undefined && { ownSources: change.sources !== null }),
          ...(change.paused !== undefined && { paused: change.paused }),
        };
      }),
    };
  }

  /** The settings with what the daemon draws from as it was changed. */
  private withSources(settings: Settings): Settings {
    const { sources: texts } = this.state;
    if (texts === undefined) return settings;
    const specs: SourceSpec[] = [];
    for (const text of texts) {
      const spec = parseSourceSpec(text, settings.allowTestSources);
      if (spec instanceof Fault) {
        this.log(
          'warn',
          'state_file',
          `${this.path}: what the daemon draws from is left as configured: ${spec.message}`,
        );
        return settings;
      }
      specs.push(spec);
    }
    const order = specs.map(({ text }) => text);
    const { deviceDefaults, devices, sources } = settings;
    const follow = <T extends DeviceDefaults>(device: T): T =>
      device.ownSources ? device : { ...device, entropy: { ...device.entropy, specs: order } };
    return {
      ...settings,
      deviceDefaults: follow(deviceDefaults),
      devices: devices.map(follow),
      sources: [...specs, ...sources.filter(({ text }) => !order.includes(text))],
    };
  }

  /** The sources of a change, or those of before where the configuration no longer has them. */
  private chosen(wanted: WantedSources, before: SourceChoice, settings: Settings): SourceChoice {
    const defaults = settings.deviceDefaults.entropy.specs;
    const choice = chooseSources(wanted, before, { ...settings, defaults });
    if (!(choice instanceof Fault)) return choice;
    this.log('warn', 'state_file', `${this.path}: sources of a change are left out: ${choice.message}`);
    return before;
  }

  async added(device: NewDevice): Promise<void> {
    const { added, removed, changed } = this.state;
    await this.write({ ...this.state, added: [...added, device], removed, changed });
  }

  async removed(name: string): Promise<void> {
    const { added, removed, changed } = this.state;
    const wasAdded = added.some((device) => device.name === name);
    await this.write({
      ...this.state,
      added: added.filter((device) => device.name !== name),
      removed: wasAdded ? removed : [...removed, name],
      changed: changed.filter((change) => change.name !== name),
    });
  }

  async changed(name: string, patch: DevicePatch): Promise<void> {
    const { added, removed, changed } = this.state;
    const before = changed.find((change) => change.name === name);
    const others = changed.filter((change) => change.name !== name);
    await this.write({
      ...this.state,
      added,
      removed,
      changed: [...others, { ...before, ...patch, name }],
    });
  }

  /** What the daemon draws from was changed; undefined: the configuration has the last word on it again. */
  async sourcesChanged(sources: readonly string[] | undefined): Promise<void> {
    const { sources: before, ...others } = this.state;
    if (sources !== undefined) await this.write({ ...others, sources: [...sources] });
    else if (before !== undefined) await this.write(others);
  }

  /** A failure is logged: the change is in force all the same. */
  private async write(state: State): Promise<void> {
    this.state = state;
    const fresh = `${this.path}.new`;
    try {
      const file = await open(fresh, 'w', 0o600);
      try {
        await file.writeFile(`${JSON.stringify(state, undefined, 2)}\n`);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(fresh, this.path);
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? String(error);
      this.log('error', 'state_file', `the change is in force, but writing ${this.path} failed: ${code}`);
    }
  }
}

/** A device as the control socket describes it, completed by what holds for all. */
export function settingsOf(
  wanted: NewDevice,
  defaults: DeviceDefaults,
  entropy: SourceChoice,
): DeviceSettings {
  const { name, socket, limit, weight, socketMode, socketGroup, memory, memSlots, connections } = wanted;
  return {
    name,
    socketPath: socket,
    socketMode: socketMode === undefined ? defaults.socketMode : parseInt(socketMode, 8),
    socketGroup: socketGroup ?? defaults.socketGroup,
    limit: limit === undefined ? defaults.limit : (limit ?? undefined),
    weight: weight ?? defaults.weight,
    entropy,
    ownSources: wanted.sources !== undefined,
    memoryPolicy: memory ?? defaults.memoryPolicy,
    memSlots: memSlots ?? defaults.memSlots,
    connections: connections ?? defaults.connections,
    paused: false,
  };
}

function stateFault(path: string, message: string): Fault {
  return new Fault(
    'daemon',
    'state_file',
    `${path}: ${message}; correct it, or remove it to forget the changes`,
  );
}
