// What a process before has left to this one: sorted, and checked device by device. What cannot be used is told and let go, and
// costs no other device anything.
import type { Fd } from '../../shared-memory/fd.js';
import type { FrontendRecord } from './frontend-record.js';
import { fileNumber, type KeptNumber, ledgerName, type NamedFd, recordNumber } from './kept-names.js';
import { filesOf, readRecord } from './record-shape.js';

/** A front-end to go on with. */
export interface InheritedFrontEnd {
  /** The number of its record. */
  readonly number: number;
  readonly recordFd: Fd;
  readonly record: FrontendRecord;
}

/** What is left to a device that is served. */
export interface LeftToDevice {
  readonly frontEnds: readonly InheritedFrontEnd[];
  /** Connections that had just been accepted, by number in the vault. */
  readonly accepted: readonly KeptNumber[];
}

/** What is left to the data plane. */
export interface Left {
  /** Open files by number in the vault. */
  readonly files: readonly (readonly [KeptNumber, number])[];
  readonly devices: readonly (readonly [name: string, LeftToDevice])[];
  /** The first number of a record that none had. */
  readonly nextRecord: number;
}

/** Everything that is left. */
export interface Inherited {
  /** Front-ends by their device's name. */
  readonly frontEnds: ReadonlyMap<string, readonly InheritedFrontEnd[]>;
  /** Ledgers of devices by their name; see ledger.ts. */
  readonly ledgers: ReadonlyMap<string, Fd>;
  /** Open files by their number in the vault. */
  readonly files: ReadonlyMap<KeptNumber, Fd>;
  /**
   * Open files that no record names: connections that had just been accepted, and what was about to be forgotten. None where a
   * record cannot be read, which may name them.
   */
  readonly unclaimed: ReadonlyMap<KeptNumber, Fd>;
  /** The first number of a record that none has. */
  readonly nextRecord: number;
  /** What nobody needs. */
  readonly surplus: readonly NamedFd[];
  /** Why front-ends cannot go on. */
  readonly refused: readonly string[];
}

/** Sorts what was left, for devices that are served now. */
export function sortInherited(kept: readonly NamedFd[], devices: ReadonlySet<string>): Inherited {
  const byLedger = new Map([...devices].map((device) => [ledgerName(device), device]));
  const files = new Map<KeptNumber, Fd>();
  const ledgers = new Map<string, Fd>();
  const surplus: NamedFd[] = [];
  const records: NamedFd[] = [];
  for (const one of kept) {
    const number = fileNumber(one.name);
    const device = byLedger.get(one.name);
    if (number !== undefined) files.set(number, one.fd);
    else if (recordNumber(one.name) !== undefined) records.push(one);
    else if (device !== undefined) ledgers.set(device, one.fd);
    else surplus.push(one);
  }
  const frontEnds = new Map<string, InheritedFrontEnd[]>();
  const refused: string[] = [];
  const unclaimed = new Map(files);
  for (const one of records) {
    const record = readRecord(one.fd);
    for (const number of record === undefined ? files.keys() : filesOf(record)) unclaimed.delete(number);
    const reason =
      record === undefined
        ? `expected a record of this version in ${one.name}, got one of another version, or none`
        : reasonAgainst(record, devices, files);
    if (reason !== undefined) {
      refused.push(reason);
      surplus.push(one);
    } else if (record !== undefined) {
      const others = frontEnds.get(record.device) ?? [];
      frontEnds.set(record.device, others);
      others.push({ number: recordNumber(one.name) ?? 0, recordFd: one.fd, record });
    }
  }
  const nextRecord = 1 + Math.max(0, ...records.map(({ name }) => recordNumber(name) ?? 0));
  return { frontEnds, ledgers, files, unclaimed, nextRecord, surplus, refused };
}

/** Why a front-end cannot be taken over; undefined: it can. */
function reasonAgainst(
  record: FrontendRecord,
  devices: ReadonlySet<string>,
  files: ReadonlyMap<KeptNumber, Fd>,
): string | undefined {
  if (!devices.has(record.device)) return `expected a device that is served, got ${record.device}`;
  const missing = filesOf(record).find((number) => !files.has(number));
  if (missing === undefined) return undefined;
  return `expected every open file of ${record.device}, got none of number ${missing}: raise FileDescriptorStoreMax`;
}
