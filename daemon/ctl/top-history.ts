// What is seen of a daemon over time: rates from each two looks, and the last of them for sparklines. Pure: the time is passed in.
//
// Counters of a daemon begin anew when it does, and those of a device when it is removed and added: a counter that went back
// tells nothing of the time between, so there is no rate for it.
import type { DeviceStatus, Status } from '../control/shapes.js';

/** As many looks are remembered: more than a line of a terminal has room for, and two minutes at one a second. Ours. */
export const REMEMBERED_LOOKS = 120;

/** What is counted of a device. */
export type Counters = Pick<DeviceStatus, 'bytes' | 'requests' | 'throttledSeconds' | 'starvedSeconds'>;

/** How a device has been served between two looks. */
export interface Rates {
  readonly bytesPerSecond: number;
  readonly requestsPerSecond: number;
  /** The part of the time in which requests were held for a limit, 0 to 1. */
  readonly throttled: number;
  /** The part of the time in which they were held for want of entropy, 0 to 1. */
  readonly starved: number;
}

/** Rates by look, oldest first; null where they are unknown. */
export type PastRates = readonly (number | null)[];

/** null: a counter went back, or no time has passed. */
export function ratesBetween(before: Counters, after: Counters, seconds: number): Rates | null {
  const wentBack =
    after.bytes < before.bytes ||
    after.requests < before.requests ||
    after.throttledSeconds < before.throttledSeconds ||
    after.starvedSeconds < before.starvedSeconds;
  if (wentBack || seconds <= 0) return null;
  // The daemon read its clock a little earlier or later than we did.
  const part = (held: number): number => Math.min(1, held / seconds);
  return {
    bytesPerSecond: (after.bytes - before.bytes) / seconds,
    requestsPerSecond: (after.requests - before.requests) / seconds,
    throttled: part(after.throttledSeconds - before.throttledSeconds),
    starved: part(after.starvedSeconds - before.starvedSeconds),
  };
}

interface Sample {
  readonly atMs: number;
  readonly counters: Counters;
}

/** One device or source. */
export class TopTrack {
  private samples: Sample[] = [];
  private readonly rates: (number | null)[] = [];
  private latestRates: Rates | null = null;

  /** Between the last two looks; null: unknown. */
  get latest(): Rates | null {
    return this.latestRates;
  }

  /** Bytes a second. */
  get past(): PastRates {
    return this.rates;
  }

  look(counters: Counters, atMs: number): void {
    const before = this.samples.at(-1);
    this.latestRates = before ? ratesBetween(before.counters, counters, (atMs - before.atMs) / 1000) : null;
    if (this.latestRates === null) this.samples = [];
    this.samples.push({ atMs, counters });
    // One look more than rates: n rates lie between n + 1 looks.
    if (this.samples.length > REMEMBERED_LOOKS + 1) this.samples.shift();
    if (before !== undefined || this.rates.length > 0)
      remember(this.rates, this.latestRates?.bytesPerSecond ?? null);
  }

  /** Nobody could look. What was counted meanwhile is known at the next look, unless the counters went back. */
  miss(): void {
    this.latestRates = null;
    remember(this.rates, null);
  }

  /** The next look is at other counters. */
  restart(): void {
    this.samples = [];
  }

  /**
   * Which part of a limit was used, 0 to 1: in the last period, or since the look before if that is longer ago; null: unknown.
   *
   * A period that is longer than what was seen counts whole: at least so much was used. The daemon never gives more than the
   * limit in a period, but two looks that are a little more than a period apart may see what was given in two: at most all.
   */
  limitUse(limit: NonNullable<DeviceStatus['limit']>): number | null {
    const last = this.samples.at(-1);
    const previous = this.samples.at(-2);
    if (last === undefined || previous === undefined) return null;
    const fromMs = Math.min(previous.atMs, last.atMs - limit.periodMs);
    const first = this.samples.findLast(({ atMs }) => atMs <= fromMs) ?? this.samples[0] ?? previous;
    const periods = Math.max(1, (last.atMs - first.atMs) / limit.periodMs);
    return Math.min(1, (last.counters.bytes - first.counters.bytes) / (limit.maxBytes * periods));
  }
}

/** Everything that is shown over time. */
export class TopHistory {
  private readonly devices = new Map<string, TopTrack>();
  private readonly sources = new Map<string, TopTrack>();
  private readonly totalRates: (number | null)[] = [];
  private pid: number | undefined;

  /** Takes a look in; `atMs` is of any clock that does not jump. */
  look(status: Status, atMs: number): void {
    const tracks = [...this.devices.values(), ...this.sources.values()];
    // Another process: its counters may by chance be above those of the one before.
    if (this.pid !== undefined && this.pid !== status.pid) for (const track of tracks) track.restart();
    this.pid = status.pid;
    const devices = status.devices.map((device): Seen => [device.name, device]);
    const sources = status.sources.map(({ spec, bytes }): Seen => [spec, ofBytes(bytes)]);
    lookAtAll(this.devices, devices, atMs);
    lookAtAll(this.sources, sources, atMs);
    remember(this.totalRates, this.total?.bytesPerSecond ?? null);
  }

  /** The daemon did not answer this time. */
  miss(): void {
    for (const track of [...this.devices.values(), ...this.sources.values()]) track.miss();
    remember(this.totalRates, null);
  }

  device(name: string): TopTrack {
    return this.devices.get(name) ?? new TopTrack();
  }

  source(spec: string): TopTrack {
    return this.sources.get(spec) ?? new TopTrack();
  }

  /** All devices whose rates are known, together; null: of none. */
  get total(): Pick<Rates, 'bytesPerSecond' | 'requestsPerSecond'> | null {
    const known = [...this.devices.values()].flatMap(({ latest }) => latest ?? []);
    if (known.length === 0) return null;
    return {
      bytesPerSecond: known.reduce((sum, rates) => sum + rates.bytesPerSecond, 0),
      requestsPerSecond: known.reduce((sum, rates) => sum + rates.requestsPerSecond, 0),
    };
  }

  /** Bytes a second of all devices. */
  get totalPast(): PastRates {
    return this.totalRates;
  }
}

type Seen = readonly [key: string, counters: Counters];

function ofBytes(bytes: number): Counters {
  return { bytes, requests: 0, throttledSeconds: 0, starvedSeconds: 0 };
}

/** What is no longer there is forgotten: a device that is added under its name again is another one. */
function lookAtAll(tracks: Map<string, TopTrack>, seen: readonly Seen[], atMs: number): void {
  const names = new Set(seen.map(([key]) => key));
  for (const key of tracks.keys()) if (!names.has(key)) tracks.delete(key);
  for (const [key, counters] of seen) {
    const track = tracks.get(key) ?? new TopTrack();
    tracks.set(key, track);
    track.look(counters, atMs);
  }
}

function remember(rates: (number | null)[], rate: number | null): void {
  rates.push(rate);
  if (rates.length > REMEMBERED_LOOKS) rates.shift();
}
