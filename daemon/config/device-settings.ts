// What the settings of one device come to, whether they stand at the top for all devices or in the table of one.
import { Fault } from '../../protocol/fault.js';
import type { MemoryPolicy } from '../../shared-memory/memory-region.js';
import { MIXED_IN, type SourceChoice } from '../entropy/pools.js';
import { parseSourceSpec, type SourceSpec } from '../entropy/source-spec.js';
import type { Limit } from '../limiter.js';
import type { DeviceTable, General } from './file-schema.js';
import type { KeyPath } from './toml-lines.js';

/** QEMU's default for `period`, which its users know. Source: QEMU, virtio-rng properties. */
export const DEFAULT_PERIOD_MS = 65536;
const DEFAULT_SOCKET_MODE = 0o660;
const DEFAULT_WEIGHT = 1;
const DEFAULT_CONNECTIONS = 1;
const DEFAULT_SOURCES: readonly string[] = ['random'];

/** One device as it is to be. */
export interface DeviceSettings {
  readonly name: string;
  readonly socketPath: string;
  readonly socketMode: number;
  readonly socketGroup: string | undefined;
  readonly limit: Limit | undefined;
  readonly weight: number;
  readonly entropy: SourceChoice;
  /** False: it draws from what the daemon draws from, in that order, also when that changes. */
  readonly ownSources: boolean;
  readonly memoryPolicy: MemoryPolicy;
  readonly memSlots: number;
  /** Front-ends at a time. */
  readonly connections: number;
  /** Requests are held because an operator wants it. */
  readonly paused: boolean;
}

/** What holds for a device that says nothing else. */
export type DeviceDefaults = Omit<DeviceSettings, 'name' | 'socketPath'>;

/** Says that something is wrong, at a place of the file when it comes from there. */
export type Refuse = (path: KeyPath, message: string) => Fault;

/** Every source that some device draws from; the same text means the same source. */
export class SourceSet {
  readonly specs: SourceSpec[] = [];
  private readonly allowTestSources: boolean;

  constructor(allowTestSources: boolean) {
    this.allowTestSources = allowTestSources;
  }

  /** Parses a list and takes its sources in; their full texts. */
  choose(texts: readonly string[], refuse: (message: string) => Fault): string[] | Fault {
    const chosen: string[] = [];
    for (const text of texts) {
      const spec = parseSourceSpec(text, this.allowTestSources);
      if (spec instanceof Fault) return refuse(spec.message);
      if (chosen.includes(spec.text)) return refuse(`expected each source once, got ${text} twice`);
      const known = this.specs.find((other) => other.text === spec.text);
      if (known !== undefined && known.minEntropy !== spec.minEntropy)
        return refuse(
          `expected one min-entropy for ${spec.text}, got ${known.minEntropy} and ${spec.minEntropy}`,
        );
      if (known === undefined) this.specs.push(spec);
      chosen.push(spec.text);
    }
    return chosen;
  }

  /** Takes the source in whose bytes are mixed into others. */
  chooseMixedIn(): void {
    const spec = parseSourceSpec(MIXED_IN, false);
    if (spec instanceof Fault) throw spec;
    if (!this.specs.some(({ text }) => text === spec.text)) this.specs.push(spec);
  }
}

/** What `given` comes to; `at` is where it stands in the file. */
export function deviceSettings(
  given: Omit<DeviceTable, 'name' | 'socket-path'>,
  sources: SourceSet,
  refuse: Refuse,
): DeviceDefaults | Fault {
  const limit = limitOf(given, ['max-bytes', 'period', 'burst-bytes'], refuse);
  if (limit instanceof Fault) return limit;
  const specs = sources.choose(given.sources ?? DEFAULT_SOURCES, (message) => refuse(['sources'], message));
  if (specs instanceof Fault) return specs;
  const mix = given.mix ?? false;
  if (mix) sources.chooseMixedIn();
  const mode = given['socket-mode'];
  return {
    socketMode: mode === undefined ? DEFAULT_SOCKET_MODE : parseInt(mode, 8),
    socketGroup: given['socket-group'],
    limit,
    weight: given.weight ?? DEFAULT_WEIGHT,
    entropy: { specs, mix },
    ownSources: false,
    memoryPolicy: given.memory ?? 'guard',
    memSlots: given['mem-slots'] ?? 0,
    connections: given.connections ?? DEFAULT_CONNECTIONS,
    paused: false,
  };
}

type LimitKeys = readonly ['max-bytes' | 'total-max-bytes', 'period' | 'total-period', 'burst-bytes'?];

/** The limit under three keys; a part of a limit alone is refused. */
export function limitOf(given: General, keys: LimitKeys, refuse: Refuse): Limit | Fault | undefined {
  const [bytesKey, ...others] = keys;
  const [periodKey, burstKey] = others;
  const maxBytes = given[bytesKey];
  if (maxBytes !== undefined) {
    const burstBytes = burstKey === undefined ? 0 : (given[burstKey] ?? 0);
    return { maxBytes, periodMs: given[periodKey] ?? DEFAULT_PERIOD_MS, burstBytes };
  }
  const alone = others.find((key) => key !== undefined && given[key] !== undefined);
  if (alone === undefined) return undefined;
  return refuse([alone], `expected --${bytesKey} with --${alone}, got --${alone} alone`);
}
