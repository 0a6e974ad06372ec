// The main thread's part in going on where another process has stopped: what that one has left, the ledgers, and where all of it is
// kept for the next one.
import type { Fault } from '../../protocol/fault.js';
import { canOpen, closeFd, type Fd } from '../../shared-memory/fd.js';
import { checkRegion, type MemoryPolicy } from '../../shared-memory/memory-region.js';
import { boundPath, socketRole } from '../../shared-memory/unix-socket.js';
import type { DeviceSocket } from '../device-sockets.js';
import { disposeAlone } from '../disposal.js';
import { LedgerFile } from '../ledger.js';
import type { Log } from '../rng-device.js';
import { NotifyQueue } from '../systemd/notify-queue.js';
import { type FrontendRecord, regionOfRecord } from './frontend-record.js';
import { type Inherited, type Left, sortInherited } from './inherited.js';
import { logLoss } from './keeping.js';
import { type KeptNumber, ledgerName, type NamedFd, TOTAL } from './kept-names.js';
import { filesOf } from './record-shape.js';

/** What a process opens for itself while it starts: threads, sources, sockets. Ours. */
const SPARE_FILES = 64;

/** What is handed from process to process. */
export class Handover {
  /** The service manager's socket; undefined: nothing is kept. */
  readonly keepAt: string | undefined;
  private readonly store: NotifyQueue | undefined;
  private readonly kept: readonly NamedFd[];
  private readonly inherited: Inherited;
  /** Ledgers that no device has taken yet, by its name. */
  private readonly ledgers: Map<string, Fd>;

  /** `kept`: what a process before has left; `devices`: those that are served now; `keepAt`: see {@link keepAt}. */
  constructor(kept: readonly NamedFd[], devices: readonly string[], keepAt: string | undefined, log: Log) {
    this.store = NotifyQueue.open(keepAt, { lost: logLoss(log), letGo: disposeAlone });
    this.keepAt = this.store && keepAt;
    this.kept = kept;
    this.inherited = sortInherited(kept, new Set([...devices, TOTAL]));
    this.ledgers = new Map(this.inherited.ledgers);
    for (const { name, fd } of this.inherited.surplus) {
      this.store?.forget(name);
      closeFd(fd);
    }
  }

  /** What is inherited came from the process itself, and no store has it yet. */
  keepInherited(): void {
    const { surplus } = this.inherited;
    for (const one of this.kept) if (!surplus.includes(one)) this.store?.keep(one.name, one.fd);
  }

  /** The ledger that a device has had, or a new one, which is kept from now on. */
  ledgerOf(device: string): LedgerFile {
    const fd = this.ledgers.get(device);
    // Taken once: a device that is removed closes it, and may come again under the same name.
    this.ledgers.delete(device);
    const left = fd === undefined ? undefined : LedgerFile.open(fd);
    if (left !== undefined) return left;
    if (fd !== undefined) {
      // One of another version: its counts are not ours to read.
      this.forgetLedger(device);
      closeFd(fd);
    }
    const fresh = LedgerFile.create();
    this.store?.keep(ledgerName(device), fresh.fd);
    return fresh;
  }

  /** The device is no more. */
  forgetLedger(device: string): void {
    this.store?.forget(ledgerName(device));
  }

  /** Why not all of `frontEnds` front-ends could go on in this process, as far as can be told beforehand; undefined: they can. */
  reasonAgainst(devices: readonly DeviceSocket[], frontEnds: number): string | undefined {
    const [refused] = this.inherited.refused;
    if (refused !== undefined) return refused;
    const perDevice = devices.map(({ settings }) => ({
      settings,
      records: (this.inherited.frontEnds.get(settings.name) ?? []).map(({ record }) => record),
    }));
    const records = perDevice.flatMap((one) => one.records);
    if (records.length !== frontEnds) return `expected ${frontEnds} front-ends, got ${records.length}`;
    for (const { settings, records } of perDevice) {
      if (records.length > settings.connections)
        return `expected ${records.length} connections of ${settings.name}, got ${settings.connections}`;
      const unusable = records
        .map((record) => this.unusableMemory(record, settings.memoryPolicy))
        .find(Boolean);
      if (unusable) return `the memory of a guest of ${settings.name}: ${unusable.message}`;
    }
    const files = records.reduce((sum, record) => sum + filesOf(record).length, SPARE_FILES);
    return canOpen(files)
      ? undefined
      : `expected ${files} files more that may be open, got fewer: raise LimitNOFILE`;
  }

  private unusableMemory({ state }: FrontendRecord, policy: MemoryPolicy): Fault | undefined {
    for (const region of state.regions ?? []) {
      const fd = this.inherited.files.get(region.file);
      const refused = fd && checkRegion(regionOfRecord(region), fd, policy);
      if (refused) return refused;
    }
    return undefined;
  }

  /** What the data plane goes on with at its start, for devices that it serves from then on. */
  leftTo(devices: readonly DeviceSocket[]): Left {
    return {
      files: [...this.inherited.files],
      nextRecord: this.inherited.nextRecord,
      devices: devices.map(({ settings: { name }, path }) => [
        name,
        {
          frontEnds: this.inherited.frontEnds.get(name) ?? [],
          accepted: path === undefined ? [] : this.acceptedOf(path),
        },
      ]),
    };
  }

  /** Connections to `path` that the process before had accepted, and no more, by number in the vault. */
  private acceptedOf(path: string): readonly KeptNumber[] {
    return [...this.inherited.unclaimed].flatMap(([number, fd]) =>
      socketRole(fd) === 'connected' && boundPath(fd) === path ? [number] : [],
    );
  }

  /** Why front-ends cannot go on. */
  get refused(): readonly string[] {
    return this.inherited.refused;
  }

  /** The process ends. */
  end(): void {
    this.store?.drain();
  }
}
