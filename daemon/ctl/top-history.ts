// What top knows: the last look at the daemon, the one before, and the rates of the last minutes. Pure: looks in, numbers out.
import type { DeviceStatus, SourceStatus, Status } from '../control/shapes.js';

/** Rates that are remembered of each device, for its sparkline. Ours: more than a terminal is wide. */
const REMEMBERED = 240;

/** What a device did between two looks. */
export interface DeviceRates {
  readonly bytesPerSecond: number;
  readonly requestsPerSecond: number;
  /** Shares of the time for which its requests were held, 0 to 1. */
  readonly throttled: number;
  readonly starved: number;
}

const IDLE: DeviceRates = { bytesPerSecond: 0, requestsPerSecond: 0, throttled: 0, starved: 0 };

/** A device with its rates, the newest last. */
export interface WatchedDevice {
  readonly device: DeviceStatus;
  readonly rates: DeviceRates;
  readonly history: readonly number[];
}

export interface WatchedSource {
  readonly source: SourceStatus;
  readonly bytesPerSecond: number;
}

/** One daemon over time. */
export class TopHistory {
  status: Status | undefined;
  devices: readonly WatchedDevice[] = [];
  sources: readonly WatchedSource[] = [];
  private before: { readonly status: Status; readonly atMs: number } | undefined;
  private readonly histories = new Map<string, number[]>();

  /** Takes a look that was made at `atMs` of some clock. */
  take(status: Status, atMs: number): void {
    // After a restart of the daemon its counters begin anew.
    const before = this.before?.status.pid === status.pid ? this.before : undefined;
    const seconds = before === undefined ? 0 : (atMs - before.atMs) / 1000;
    this.devices = status.devices.map((device) => {
      const last = before?.status.devices.find(({ name }) => name === device.name);
      const rates = last === undefined || seconds <= 0 ? IDLE : ratesOf(last, device, seconds);
      return { device, rates, history: this.remember(device.name, rates.bytesPerSecond) };
    });
    this.sources = status.sources.map((source) => {
      const last = before?.status.sources.find(({ spec }) => spec === source.spec);
      const bytes = last === undefined ? 0 : Math.max(0, source.bytes - last.bytes);
      return { source, bytesPerSecond: seconds > 0 ? bytes / seconds : 0 };
    });
    for (const name of this.histories.keys())
      if (!status.devices.some((device) => device.name === name)) this.histories.delete(name);
    this.status = status;
    this.before = { status, atMs };
  }

  private remember(name: string, bytesPerSecond: number): readonly number[] {
    const history = this.histories.get(name) ?? [];
    history.push(bytesPerSecond);
    if (history.length > REMEMBERED) history.shift();
    this.histories.set(name, history);
    return history;
  }
}

/** A device that was removed and added again has begun anew: it has no rate yet. */
function ratesOf(before: DeviceStatus, now: DeviceStatus, seconds: number): DeviceRates {
  if (now.bytes < before.bytes || now.requests < before.requests) return IDLE;
  const share = (later: number, earlier: number): number =>
    Math.min(1, Math.max(0, (later - earlier) / seconds));
  return {
    bytesPerSecond: (now.bytes - before.bytes) / seconds,
    requestsPerSecond: (now.requests - before.requests) / seconds,
    throttled: share(now.throttledSeconds, before.throttledSeconds),
    starved: share(now.starvedSeconds, before.starvedSeconds),
  };
}
