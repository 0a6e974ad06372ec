// What the control socket can ask of the daemon. The daemon implements it (service.ts); routes know nothing else.
import type { Fault } from '../../protocol/fault.js';
import type { Peer } from './peers.js';
import type {
  DevicePatch,
  DeviceStatus,
  Health,
  NewDevice,
  NewSource,
  Reload,
  SourceStatus,
  Status,
} from './shapes.js';

/** Reading never waits; changes are made one after the other, each whole or not at all. */
export interface Operations {
  readonly version: string;
  readonly isReady: boolean;
  health(): Health;
  status(): Status;
  devices(): readonly DeviceStatus[];
  device(name: string): DeviceStatus | Fault;
  sources(): readonly SourceStatus[];
  /** Gives each log record from now on to `listener`, as a line of JSON; the result ends that. */
  events(listener: (record: string) => void): () => void;
  /** In the text form of Prometheus. */
  metrics(): Promise<{ readonly text: string; readonly contentType: string }>;
  addDevice(peer: Peer, wanted: NewDevice): Promise<DeviceStatus | Fault>;
  changeDevice(peer: Peer, name: string, patch: DevicePatch): Promise<DeviceStatus | Fault>;
  removeDevice(peer: Peer, name: string): Promise<Fault | undefined>;
  addSource(peer: Peer, wanted: NewSource): Promise<SourceStatus | Fault>;
  /** Everything that the daemon draws from, best first. */
  orderSources(peer: Peer, texts: readonly string[]): Promise<readonly SourceStatus[] | Fault>;
  removeSource(peer: Peer, text: string): Promise<Fault | undefined>;
  /** Tries sources that have failed again, or `only` one of them; their specs. */
  enableSources(who: string, only?: string): readonly string[] | Fault;
  reload(who: string): Promise<Reload | Fault>;
  /** For another daemon that takes over; see handover/departure.ts. */
  readonly departure: {
    /** Stops serving, and passes everything to the datagram socket at `address`. */
    begin(peer: Peer, address: string): Promise<Fault | undefined>;
    finish(peer: Peer): Fault | undefined;
    cancel(peer: Peer): Fault | undefined;
  };
}
