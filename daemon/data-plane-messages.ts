// What the two threads say to each other. The data plane posts; it takes messages only when its wake-up eventfd says so.
import type { Limit } from './limiter.js';
import type { DeviceOptions, LogLevel } from './rng-device.js';
import type { SourceSpec } from './entropy/source-spec.js';

/** A source as the data plane is given it. */
export type SourceSetup =
  | { readonly kind: 'immediate'; readonly spec: SourceSpec }
  /** Read by a thread of its own, which fills the queue at `address`. */
  | {
      readonly kind: 'fed';
      readonly spec: SourceSpec;
      readonly address: number;
      readonly control: SharedArrayBuffer;
    };

/** What a data-plane worker is started with. */
export interface DataPlaneSetup {
  readonly wakeFd: number;
  /** See signal-watch.ts. */
  readonly signalMark: SharedArrayBuffer;
  readonly busyPollUs: number;
  /** What all devices together may deliver; undefined: no limit. */
  readonly total: Limit | undefined;
  readonly sources: readonly SourceSetup[];
  readonly devices: readonly DeviceOptions[];
}

/** From the main thread. */
export interface StopMessage {
  readonly kind: 'stop';
}

/** What the data plane has done with and the main thread is to let go. */
export type Disposable = { readonly fd: number } | { readonly address: number; readonly length: number };

/** From the data plane. */
export type DataPlaneMessage =
  | { readonly kind: 'serving' }
  | { readonly kind: 'lastConnectionEnded' }
  /** So many front-ends are connected now. */
  | { readonly kind: 'connections'; readonly count: number }
  | { readonly kind: 'dispose'; readonly what: Disposable }
  | {
      readonly kind: 'log';
      readonly level: LogLevel;
      readonly code: string;
      readonly message: string;
      readonly fields: Readonly<Record<string, unknown>>;
    };
