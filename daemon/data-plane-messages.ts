// What the two threads say to each other. The data plane posts; it takes messages only when its wake-up eventfd says so.
import type { Limit } from './limiter.js';
import type { DeviceOptions, LogLevel } from './rng-device.js';
import type { FedQueuePlace } from './entropy/fed-queue.js';
import type { SourceChoice } from './entropy/pools.js';
import type { SourceSpec } from './entropy/source-spec.js';
import type { StoredState } from './entropy/source-status.js';
import type { Left } from './handover/inherited.js';

/** A source as the data plane is given it. */
export interface SourceSetup {
  readonly spec: SourceSpec;
  /** See source-status.ts. */
  readonly status: SharedArrayBuffer;
  /** Filled by the thread that reads the source. */
  readonly queue: FedQueuePlace;
}

/** What a data-plane worker is started with. */
export interface DataPlaneSetup {
  readonly wakeFd: number;
  /** See peer-calls.ts. */
  readonly mark: SharedArrayBuffer;
  /** See pulse.ts. */
  readonly pulse: SharedArrayBuffer;
  readonly busyPollUs: number;
  /** What all devices together may deliver; undefined: no limit. */
  readonly total: Limit | undefined;
  readonly sources: readonly SourceSetup[];
  /** Where the ledger of the total lies; see ledger.ts. */
  readonly totalLedger: number;
  /** The service manager's socket, where it keeps what the next process needs; undefined: nothing is kept. */
  readonly keepAt: string | undefined;
  /** What a process before has left. */
  readonly left: Left;
  readonly devices: readonly DeviceOptions[];
}

/** What changes on a device; what is left out stays. */
export interface DeviceChange {
  readonly paused?: boolean;
  /** undefined: no limit from now on. */
  readonly limit?: Limit | undefined;
  readonly weight?: number;
  readonly entropy?: SourceChoice;
  /** For the main thread: whether the device stays with these when the daemon's change. */
  readonly ownSources?: boolean;
}

/** A change while the data plane serves; it happens whole or not at all. */
export type Command =
  | { readonly kind: 'addDevice'; readonly device: DeviceOptions }
  | { readonly kind: 'removeDevice'; readonly name: string }
  | { readonly kind: 'changeDevice'; readonly name: string; readonly change: DeviceChange }
  | { readonly kind: 'addSource'; readonly source: SourceSetup }
  /** No device draws from it any more. */
  | { readonly kind: 'removeSource'; readonly spec: string }
  /** What all devices together may deliver; undefined: no limit. */
  | { readonly kind: 'changeTotal'; readonly total: Limit | undefined };

/** From the main thread. */
export type MainMessage =
  /** `keep`: leave every connection as it is, for the next process. */
  | { readonly kind: 'stop'; readonly keep: boolean }
  /** Serve nothing more, write every front-end down and send all to the socket at `address`; then wait for a message. */
  | { readonly kind: 'freeze'; readonly id: number; readonly address: string }
  /** Nobody has taken over: go on. */
  | { readonly kind: 'thaw' }
  | { readonly kind: 'command'; readonly id: number; readonly command: Command };

/** What the data plane has done with and the main thread is to let go; `end` and `signal`: see peer-disposal.ts. */
export type Disposable =
  | { readonly fd: number; readonly how: 'close' | 'end' | 'signal' }
  | { readonly address: number; readonly length: number };
export interface DisposeMessage {
  readonly kind: 'dispose';
  /** The number of the seat whose front-end passed it, or one below 0: what makes it wait holds up that only. */
  readonly device: number;
  /** One word, which counts what waits of this device. */
  readonly waiting: Int32Array;
  readonly what: Disposable;
}

/** From the thread that reads a source: its state has changed, and why, as a sentence without a subject. */
export interface SourceMessage {
  readonly kind: 'source';
  readonly spec: string;
  readonly state: StoredState;
  readonly reason: string;
}

/** From the thread that reads a source; it tells once that it has tried to open it. */
export type ReaderMessage = SourceMessage | { readonly kind: 'tried' };

/** From the data plane. */
export type DataPlaneMessage =
  | { readonly kind: 'serving' }
  | { readonly kind: 'lastConnectionEnded' }
  /** A command was carried out. */
  | { readonly kind: 'done'; readonly id: number }
  /** It is frozen, by the message of this id; `sent`: all that was to be sent went out. */
  | { readonly kind: 'frozen'; readonly id: number; readonly sent: boolean }
  | SourceMessage
  /** Bytes come from another source than the last ones did. */
  | { readonly kind: 'sourceSwitch'; readonly to: string; readonly from: string }
  | DisposeMessage
  | {
      readonly kind: 'log';
      readonly level: LogLevel;
      readonly code: string;
      readonly message: string;
      readonly fields: Readonly<Record<string, unknown>>;
    };
