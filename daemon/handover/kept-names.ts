// The names under which open files outlive the process: ASCII without a colon, 255 bytes at most. Source: sd_notify(3), FDNAME.
import { createHash } from 'node:crypto';
import type { Fd } from '../../shared-memory/fd.js';

/** An open file under a name. */
export interface NamedFd {
  readonly name: string;
  readonly fd: Fd;
}

/** The number of an open file in the vault (fd-vault.ts); no other file has it while it is kept. */
export type KeptNumber = number;

/** All begin so, and no socket unit's does: it may be called vhost-rngd.socket. */
const FILE = 'vhost-rngd.fd.';
const FRONT_END = 'vhost-rngd.front-end.';
const LEDGER = 'vhost-rngd.ledger.';
const MAX_NAME_BYTES = 255;

/** The ledger of what all devices together have taken; no device can have this name. */
export const TOTAL = '*';

/** The name of an open file that front-ends use. */
export function fileName(number: KeptNumber): string {
  return `${FILE}${number}`;
}

/** The name of a front-end's record. */
export function recordName(number: number): string {
  return `${FRONT_END}${number}`;
}

/** The name of a device's ledger, another for each device. */
export function ledgerName(device: string): string {
  const name = `${LEDGER}${encodeURIComponent(device)}`;
  if (name.length <= MAX_NAME_BYTES) return name;
  return `${LEDGER}${createHash('sha256').update(device).digest('hex')}`;
}

/** The number in the name of such an open file; undefined: it is another kind of name. */
export function fileNumber(name: string): KeptNumber | undefined {
  return numberBehind(FILE, name);
}

/** The number in the name of a record; undefined: it is another kind of name. */
export function recordNumber(name: string): number | undefined {
  return numberBehind(FRONT_END, name);
}

function numberBehind(prefix: string, name: string): number | undefined {
  if (!name.startsWith(prefix)) return undefined;
  const digits = name.slice(prefix.length);
  return /^\d{1,15}$/.test(digits) ? Number(digits) : undefined;
}

/** Whether a process of ours has kept what has this name. */
export function isKept(name: string): boolean {
  return [FILE, FRONT_END, LEDGER].some((prefix) => name.startsWith(prefix));
}
