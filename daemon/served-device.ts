// A device as the main thread knows it: its settings, its socket file, its counters, and how it stands for an operator.
import { lstat } from 'node:fs/promises';
import { protocolFeatureNames, virtioFeatureNames } from '../protocol/features.js';
import type { DeviceStatus } from './control/shapes.js';
import { createCounters, DeviceCounters, Hold, RingState } from './counters.js';
import type { DeviceChange } from './data-plane-messages.js';
import type { DeviceSocket } from './device-sockets.js';
import { quantileSeconds } from './latency.js';
import type { ListeningSocket } from './listening-socket.js';
import type { SourceChoice } from './entropy/pools.js';
import type { Limit } from './limiter.js';
import type { DeviceOptions } from './rng-device.js';

type Connection = NonNullable<DeviceStatus['connection']>;

const HELD_FOR: Readonly<Record<Hold, Connection['ring']['heldFor']>> = {
  [Hold.None]: null,
  [Hold.Limit]: 'limit',
  [Hold.Budget]: 'budget',
  [Hold.Entropy]: 'entropy',
  [Hold.Pause]: 'pause',
};

const RING_STATES = {
  [RingState.Stopped]: 'stopped',
  [RingState.Running]: 'running',
  [RingState.Faulted]: 'faulted',
} as const;

/** One device that is served. */
export class ServedDevice {
  readonly name: string;
  readonly file: ListeningSocket | undefined;
  readonly counters: DeviceCounters;
  /** False once someone has removed its socket file: nobody can connect any more. */
  hasFile = true;
  lastError: DeviceStatus['lastError'] = null;
  limit: Limit | undefined;
  weight: number;
  entropy: SourceChoice;
  private readonly socket: DeviceSocket;
  private readonly memory = createCounters();

  constructor(socket: DeviceSocket) {
    this.name = socket.settings.name;
    this.file = socket.file;
    this.limit = socket.settings.limit;
    this.weight = socket.settings.weight;
    this.entropy = socket.settings.entropy;
    this.socket = socket;
    this.counters = new DeviceCounters(this.memory);
  }

  /** Looks, in the thread pool, whether its socket file is still there. */
  async lookForFile(): Promise<void> {
    if (this.file === undefined) return;
    const inode = await lstat(this.file.path).then(
      ({ ino }) => ino,
      () => undefined,
    );
    this.hasFile = inode === this.file.inode;
  }

  /** What the data plane is given. */
  get options(): DeviceOptions {
    const { fd, connected, settings } = this.socket;
    const { memoryPolicy, memSlots } = settings;
    return {
      name: this.name,
      fd,
      connected,
      limit: this.limit,
      weight: this.weight,
      entropy: this.entropy,
      memory: { memoryPolicy, memSlots },
      paused: settings.paused,
      counters: this.memory,
    };
  }

  /** A change is in force. */
  take(change: DeviceChange): void {
    if ('limit' in change) this.limit = change.limit;
    this.weight = change.weight ?? this.weight;
    this.entropy = change.entropy ?? this.entropy;
  }

  /** Where it listens, for a log line. */
  get place(): string {
    return this.file?.path ?? `fd ${this.socket.fd}`;
  }

  /** Everything that an operator may see. `nowMs` is CLOCK_MONOTONIC. */
  status(nowMs: number): DeviceStatus {
    const { counters } = this;
    const latencies = counters.latencyCounts;
    return {
      name: this.name,
      socket: this.file?.path ?? null,
      state: counters.isPaused ? 'paused' : counters.isConnected ? 'connected' : 'listening',
      limit: this.limit ?? null,
      weight: this.weight,
      sources: [...this.entropy.specs],
      mix: this.entropy.mix,
      connection: counters.isConnected ? this.connection() : null,
      requests: counters.requests,
      bytes: counters.bytes,
      malformedChains: counters.malformed,
      ringFaults: counters.ringFaults,
      connectionFaults: counters.connectionFaults,
      connections: counters.connections,
      refusedConnections: counters.refusals,
      throttledSeconds: counters.throttledMs(nowMs) / 1000,
      starvedSeconds: counters.starvedMs(nowMs) / 1000,
      latency: {
        p50Seconds: quantileSeconds(latencies, 0.5),
        p99Seconds: quantileSeconds(latencies, 0.99),
      },
      lastError: this.lastError,
    };
  }

  private connection(): Connection {
    const { counters } = this;
    const { regions, bytes, sealedRegions } = counters.memory;
    const heldFor = HELD_FOR[counters.hold];
    return {
      ...counters.peer,
      virtioFeatures: virtioFeatureNames(counters.features),
      protocolFeatures: protocolFeatureNames(counters.protocolFeatures),
      memory: { regions, bytes, sealed: regions > 0 && regions === sealedRegions },
      ring: {
        state: heldFor === null ? RING_STATES[counters.ringState] : 'held',
        size: counters.ringSize,
        heldFor,
      },
    };
  }
}
