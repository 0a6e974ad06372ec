// What a process before has left to this one: sorted, and checked device by device. What cannot be used is told and let go, and
// costs no other device anything.
import { createHash } from 'node:crypto';
import type { Fd } from '../../shared-memory/fd.js';
import type { NamedFd } from '../systemd/activation.js';
import { keptNumber } from './fd-vault.js';
import { recordNumber } from './front-end-journal.js';
import type { FrontendRecord } from './frontend-record.js';
import { RecordFile } from './record-file.js';
import { filesOf, parseRecord } from './record-shape.js';

/** A front-end to go on with. */
export interface InheritedFrontEnd {
  /** The number of its record. */
  readonly number: number;
  readonly recordFd: Fd;
  readonly record: FrontendRecord;
}

/** What is left, for the data plane. */
export interface Inherited {
  /** Front-ends by their device's name. */
  readonly frontEnds: ReadonlyMap<string, readonly InheritedFrontEnd[]>;
  /** Ledgers of devices by their name; see ledger.ts. */
  readonly ledgers: ReadonlyMap<string, Fd>;
  /** Open files by their number in the vault. */
  readonly files: ReadonlyMap<number, Fd>;
  /**
   * Open files that no record names: connections that had just been accepted, and what was about to be forgotten. None where a
   * record is refused, which may name them.
   */
  readonly unclaimed: ReadonlyMap<number, Fd>;
  /** What nobody needs. */
  readonly surplus: readonly NamedFd[];
  /** Why front-ends cannot go on. */
  readonly refused: readonly string[];
}

const LEDGER_PREFIX = 'vhost-rngd.ledger.';

/** Bytes of a name in the store. Source: sd_notify(3), FDNAME. */
const MAX_NAME_BYTES = 255;

/** The name under which a device's ledger is kept: ASCII without a colon, and another for each device. */
export function ledgerName(device: string): string {
  const name = `${LEDGER_PREFIX}${encodeURIComponent(device)}`;
  if (name.length <= MAX_NAME_BYTES) return name;
  return `${LEDGER_PREFIX}${createHash('sha256').update(device).digest('hex')}`;
}

/** Sorts what was left, for devices that are served now. */
export function sortInherited(kept: readonly NamedFd[], devices: ReadonlySet<string>): Inherited {
  const files = new Map<number, Fd>();
  const ledgers = new Map<string, Fd>();
  const surplus: NamedFd[] = [];
  const records: NamedFd[] = [];
  const refused: string[] = [];
  for (const file of kept) {
    const number = keptNumber(file.name);
    const device = [...devices].find((name) => ledgerName(name) === file.name);
    if (number !== undefined) files.set(number, file.fd);
    else if (device !== undefined) ledgers.set(device, file.fd);
    else if (recordNumber(file.name) !== undefined) records.push(file);
    else surplus.push(file);
  }
  const frontEnds = new Map<string, InheritedFrontEnd[]>();
  for (const file of records) {
    const frontEnd = readFrontEnd(file, devices, files);
    if (typeof frontEnd === 'string') {
      refused.push(frontEnd);
      surplus.push(file);
    } else {
      const { device } = frontEnd.record;
      frontEnds.set(device, [...(frontEnds.get(device) ?? []), frontEnd]);
    }
  }
  const claimed = new Set([...frontEnds.values()].flat().flatMap(({ record }) => filesOf(record)));
  const unclaimed = new Map(
    refused.length === 0 ? [...files].filter(([number]) => !claimed.has(number)) : [],
  );
  return { frontEnds, ledgers, files, unclaimed, surplus, refused };
}

/** The front-end, or why it cannot be taken over. */
function readFrontEnd(
  { name, fd }: NamedFd,
  devices: ReadonlySet<string>,
  files: ReadonlyMap<number, Fd>,
): InheritedFrontEnd | string {
  const text = RecordFile.open(fd)?.text;
  const record = text === undefined ? undefined : parseRecord(text);
  if (record === undefined)
    return `expected a record of this version in ${name}, got one of another version, or none`;
  if (!devices.has(record.device)) return `expected a device that is served, got ${record.device}`;
  const missing = filesOf(record).find((number) => !files.has(number));
  if (missing !== undefined)
    return `expected every open file of ${record.device}, got none of number ${missing}: raise FileDescriptorStoreMax`;
  return { number: recordNumber(name) ?? 0, recordFd: fd, record };
}
