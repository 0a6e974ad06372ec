// The main thread's part in going on where another process has stopped: what that one has left, the ledgers, and where all of it is
// kept for the next one.
import { closeFd, type Fd } from '../../shared-memory/fd.js';
import { boundPath, socketRole } from '../../shared-memory/unix-socket.js';
import type { DeviceSocket } from '../device-sockets.js';
import { LedgerFile } from '../ledger.js';
import type { DeviceOptions } from '../rng-device.js';
import type { NamedFd } from '../systemd/activation.js';
import { RETRY_MS, ServiceFdStore } from '../systemd/fd-store.js';
import { NotifySocket } from '../systemd/notify-socket.js';
import type { KeptNumber } from './fd-vault.js';
import { type Inherited, type InheritedFrontEnd, ledgerName, sortInherited } from './inherited.js';

/** The ledger of what all devices together have taken; no device can have this name. */
export const TOTAL = '*';

/** What is handed from process to process. */
export class Handover {
  /** The service manager's socket; undefined: nothing is kept. */
  readonly keepAt: string | undefined;
  private readonly store: ServiceFdStore | undefined;
  private readonly kept: readonly NamedFd[];
  private readonly inherited: Inherited;

  /** `kept`: what a process before has left; `devices`: those that are served now; `keepAt`: see {@link keepAt}. */
  constructor(kept: readonly NamedFd[], devices: readonly string[], keepAt: string | undefined) {
    const socket = NotifySocket.open(keepAt);
    this.keepAt = socket === undefined ? undefined : keepAt;
    this.store = socket && new ServiceFdStore(socket, () => this.flushSoon());
    this.kept = kept;
    this.inherited = sortInherited(kept, new Set([...devices, TOTAL]));
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

  private flushSoon(): void {
    setTimeout(() => this.store?.flush(), RETRY_MS);
  }

  /** The ledger that a device has had, or a new one, which is kept from now on. */
  ledgerOf(device: string): LedgerFile {
    const fd = this.inherited.ledgers.get(device);
    const left = fd === undefined ? undefined : LedgerFile.open(fd);
    if (left !== undefined) return left;
    // One of another version: its counts are not ours to read.
    if (fd !== undefined) this.forgetLedger(device, fd);
    const fresh = LedgerFile.create();
    this.store?.keep(ledgerName(device), fresh.fd);
    return fresh;
  }

  /** The device is no more. */
  forgetLedger(device: string, left?: Fd): void {
    this.store?.forget(ledgerName(device));
    if (left !== undefined) closeFd(left);
  }

  /** Front-ends of a device that go on in this process. */
  frontEndsOf(device: string): readonly InheritedFrontEnd[] {
    return this.inherited.frontEnds.get(device) ?? [];
  }

  /** What a device goes on with. */
  inheritedBy({ settings, path }: DeviceSocket): Pick<DeviceOptions, 'frontEnds' | 'accepted'> {
    return {
      frontEnds: this.frontEndsOf(settings.name),
      accepted: path === undefined ? [] : this.acceptedOf(path),
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

  /** Open files by number in the vault, for the data plane to take over. */
  get files(): readonly (readonly [number, number])[] {
    return [...this.inherited.files];
  }

  /** The process ends. */
  end(): void {
    this.store?.drain();
  }
}
