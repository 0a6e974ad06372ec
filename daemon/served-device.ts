// A device as the main thread knows it: its settings, its socket file, its counters, and how it stands for an operator.
import { readFileSync } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { Fault } from '../protocol/fault.js';
import { protocolFeatureNames, virtioFeatureNames } from '../protocol/features.js';
import { limitText } from './change-text.js';
import type { DeviceStatus } from './control/shapes.js';
import { Hold, RingState, SeatCounters } from './counters.js';
import type { DeviceChange } from './data-plane-messages.js';
import type { DeviceSocket } from './device-sockets.js';
import { quantileSeconds } from './latency.js';
import { ledgerName, type NamedFd } from './handover/kept-names.js';
import { LISTENER } from './handover/passing.js';
import type { LedgerFile } from './ledger.js';
import type { ListeningSocket } from './listening-socket.js';
import type { SourceChoice } from './entropy/pools.js';
import type { Limit } from './limiter.js';
import type { DeviceOptions } from './rng-device.js';
import { closingCommands, serviceOf } from './systemd/unit-names.js';

/** Names of devices in an error. */
const MOST_NAMES = 8;

type FrontEnd = DeviceStatus['frontEnds'][number];

const HELD_FOR: Readonly<Record<Hold, FrontEnd['ring']['heldFor']>> = {
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
  /** Counters of each seat; the device's own are their sums. */
  readonly seats: readonly SeatCounters[];
  /** False once someone has removed its socket file: nobody can connect any more. */
  hasFile = true;
  lastError: DeviceStatus['lastError'] = null;
  limit: Limit | undefined;
  weight: number;
  entropy: SourceChoice;
  ownSources: boolean;
  private paused: boolean;
  private readonly socket: DeviceSocket;
  private readonly ledger: LedgerFile;

  /** `ledger`: the device's from here on. */
  constructor(socket: DeviceSocket, ledger: LedgerFile) {
    this.name = socket.settings.name;
    this.file = socket.file;
    this.limit = socket.settings.limit;
    this.weight = socket.settings.weight;
    this.entropy = socket.settings.entropy;
    this.ownSources = socket.settings.ownSources;
    this.paused = socket.settings.paused;
    this.socket = socket;
    this.ledger = ledger;
    this.seats = Array.from(
      { length: socket.settings.connections },
      (_, i) => new SeatCounters(ledger.ledger.seat(i)),
    );
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
    const { memoryPolicy, memSlots, connections } = settings;
    return {
      name: this.name,
      fd,
      connected,
      limit: this.limit,
      weight: this.weight,
      entropy: this.entropy,
      memory: { memoryPolicy, memSlots },
      paused: this.paused,
      seats: connections,
      ledger: this.ledger.ledger.address,
    };
  }

  /** What a process that takes over needs of it, beside its front-ends; borrowed. */
  get fds(): readonly NamedFd[] {
    const ledger = { name: ledgerName(this.name), fd: this.ledger.fd };
    return this.socket.connected ? [ledger] : [ledger, { name: LISTENER, fd: this.socket.fd }];
  }

  /** A change is in force. */
  take(change: DeviceChange): void {
    if ('limit' in change) this.limit = change.limit;
    this.weight = change.weight ?? this.weight;
    this.entropy = change.entropy ?? this.entropy;
    this.paused = change.paused ?? this.paused;
    this.ownSources = change.ownSources ?? this.ownSources;
  }

  /** undefined: an inherited socket without one. */
  get path(): string | undefined {
    return this.socket.path;
  }

  /** Where it listens, for a log line. */
  get place(): string {
    return this.socket.path ?? `fd ${this.socket.fd}`;
  }

  /** What it is when it begins to listen, for a log line. */
  get greeting(): string {
    return `listening on ${this.place}; source ${this.entropy.specs.join(', ')}; ${limitText(this.limit)}`;
  }

  /** Why it cannot be removed while the daemon runs: systemd would go on listening, and VMMs that connect would wait for ever. */
  get refusesRemoval(): Fault | undefined {
    const { passedAs } = this.socket;
    if (passedAs === undefined) return undefined;
    const commands = closingCommands(passedAs, serviceOf(readFileSync('/proc/self/cgroup', 'utf8')));
    return new Fault(
      'request',
      'device_activated',
      `expected a device whose socket the daemon has made, got ${this.name}, on whose socket the service manager listens: ` +
        (commands ?? 'stop its socket unit, and restart the daemon'),
    );
  }

  /** Everything that an operator may see. `nowMs` is CLOCK_MONOTONIC. */
  status(nowMs: number): DeviceStatus {
    const connected = this.seats.filter(({ isConnected }) => isConnected);
    const latencies = this.latencyCounts;
    return {
      name: this.name,
      socket: this.socket.path ?? null,
      state: this.paused ? 'paused' : connected.length > 0 ? 'connected' : 'listening',
      limit: this.limit ?? null,
      weight: this.weight,
      sources: [...this.entropy.specs],
      ownSources: this.ownSources,
      mix: this.entropy.mix,
      maxConnections: this.seats.length,
      frontEnds: connected.map(frontEndOf),
      requests: this.sum((seat) => seat.requests),
      bytes: this.sum((seat) => seat.bytes),
      malformedChains: this.sum((seat) => seat.malformed),
      ringFaults: this.sum((seat) => seat.ringFaults),
      connectionFaults: this.sum((seat) => seat.connectionFaults),
      connections: this.sum((seat) => seat.connections),
      refusedConnections: this.sum((seat) => seat.refusals),
      throttledSeconds: this.sum((seat) => seat.throttledMs(nowMs)) / 1000,
      starvedSeconds: this.sum((seat) => seat.starvedMs(nowMs)) / 1000,
      latency: {
        p50Seconds: quantileSeconds(latencies, 0.5),
        p99Seconds: quantileSeconds(latencies, 0.99),
      },
      lastError: this.lastError,
    };
  }

  private sum(count: (seat: SeatCounters) => number): number {
    return this.seats.reduce((sum, seat) => sum + count(seat), 0);
  }

  /** Sampled latencies of all seats by bucket; see latency.ts. */
  get latencyCounts(): readonly number[] {
    return this.seats
      .map(({ latencyCounts }) => latencyCounts)
      .reduce((sums, counts) => sums.map((sum, i) => sum + (counts[i] ?? 0)));
  }

  get latencySumMs(): number {
    return this.sum((seat) => seat.latencySumMs);
  }

  /** Lets go of what it was counted in. SAFETY: the data plane serves the device no more. */
  close(): void {
    this.ledger.close();
  }
}

/** Why a device cannot be added beside those that are there; undefined: it can, as far as they go. */
export function clashOf(
  { name, socket }: { readonly name: string; readonly socket: string },
  there: ReadonlyMap<string, ServedDevice>,
): Fault | undefined {
  if (there.has(name))
    return new Fault('request', 'device_exists', `expected a new name, got ${name}, which is there`);
  const holder = [...there.values()].find(({ path }) => path === socket);
  return (
    holder &&
    new Fault(
      'request',
      'socket_path_live',
      `expected a path of its own, got ${socket}, on which the device ${holder.name} listens`,
    )
  );
}

/** `there`: names of the devices that there are. */
export function unknownDevice(name: string, there: Iterable<string>): Fault {
  const names = [...there];
  const shown = names.slice(0, MOST_NAMES).join(', ') + (names.length > MOST_NAMES ? ', …' : '');
  const known = names.length === 0 ? 'there is none' : `there ${names.length === 1 ? 'is' : 'are'} ${shown}`;
  return new Fault('request', 'unknown_device', `expected a device that is there, got ${name}: ${known}`);
}

function frontEndOf(counters: SeatCounters): FrontEnd {
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
