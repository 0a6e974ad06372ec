// What one front-end has set up, as text that another process can go on with: what the VMM passed and said, and where its
// connection stands. Where the ring stands is in guest memory. Numbers of 64 bits are hexadecimal text; open files are numbers
// of the vault (fd-vault.ts).
import type { Fd } from '../../shared-memory/fd.js';
import type { RegionDescription } from '../../shared-memory/memory-region.js';
import type { RingAddresses } from '../vring-places.js';
import type { KeptNumber } from './kept-names.js';

/** Changes when a process that knows this version could misread the next one. */
export const RECORD_VERSION = 2;

/** A ring between SET_VRING_NUM and GET_VRING_BASE. */
export interface VringRecord {
  readonly size: number;
  readonly base: number;
  readonly addresses: {
    readonly flags: number;
    readonly descUserAddr: string;
    readonly usedUserAddr: string;
    readonly availUserAddr: string;
  } | null;
  /** SET_VRING_KICK has come; null as kick: the front-end asks for polling. */
  readonly started: boolean;
  readonly enabled: boolean;
  /** It was served: where it stands is its used.idx, whatever the base was. */
  readonly running: boolean;
  readonly faulted: boolean;
  /** A request was served, so memory is shared. */
  readonly hasServed: boolean;
  readonly kick: KeptNumber | null;
  readonly call: KeptNumber | null;
  readonly err: KeptNumber | null;
}

/** A memory region. */
export interface RegionRecord {
  readonly guestPhysAddr: string;
  readonly size: string;
  readonly userAddr: string;
  readonly mmapOffset: string;
  readonly file: KeptNumber;
}

/** A device as its front-end has set it up. */
export interface DeviceRecord {
  readonly features: string;
  readonly protocolFeatures: string;
  readonly owned: boolean;
  readonly status: string;
  /** null: there was no memory table yet. */
  readonly regions: readonly RegionRecord[] | null;
  readonly backendReq: KeptNumber | null;
  readonly vring: VringRecord;
}

/** A connection. Bytes are base64. */
export interface FrontendRecord {
  readonly version: typeof RECORD_VERSION;
  /** The device's name. */
  readonly device: string;
  readonly socket: KeptNumber;
  readonly state: DeviceRecord;
  /**
   * What has come of a message that has not been carried out; it is, once it is whole. The last `inSocket` bytes of it may still be
   * in the socket.
   */
  readonly message: {
    readonly bytes: string;
    readonly fds: readonly KeptNumber[];
    /** The first fds that wait in the socket. */
    readonly ahead: readonly KeptNumber[];
    readonly inSocket: number;
  };
  /** Where replies lie, and end; see outbox.ts. */
  readonly replies: { readonly file: KeptNumber; readonly end: number };
}

/** Gives the vault's number of an fd that its owner keeps. */
export type Keep = (fd: Fd) => KeptNumber;
/** Gives an fd of one's own for a number of the vault. Throws when it is not there. */
export type Take = (number: KeptNumber) => Fd;

/** A number of 64 bits as records have it; BigInt() reads it. */
export function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}

export function recordOfRegion(description: RegionDescription, file: KeptNumber): RegionRecord {
  const { guestPhysAddr, size, userAddr, mmapOffset } = description;
  return {
    guestPhysAddr: hex(guestPhysAddr),
    size: hex(size),
    userAddr: hex(userAddr),
    mmapOffset: hex(mmapOffset),
    file,
  };
}

export function regionOfRecord(record: RegionRecord): RegionDescription {
  const { guestPhysAddr, size, userAddr, mmapOffset } = record;
  return {
    guestPhysAddr: BigInt(guestPhysAddr),
    size: BigInt(size),
    userAddr: BigInt(userAddr),
    mmapOffset: BigInt(mmapOffset),
  };
}

export function recordOfAddresses(addresses: RingAddresses): NonNullable<VringRecord['addresses']> {
  const { flags, descUserAddr, usedUserAddr, availUserAddr } = addresses;
  return {
    flags,
    descUserAddr: hex(descUserAddr),
    usedUserAddr: hex(usedUserAddr),
    availUserAddr: hex(availUserAddr),
  };
}

export function addressesOfRecord(record: NonNullable<VringRecord['addresses']>): RingAddresses {
  const { flags, descUserAddr, usedUserAddr, availUserAddr } = record;
  return {
    flags,
    descUserAddr: BigInt(descUserAddr),
    usedUserAddr: BigInt(usedUserAddr),
    availUserAddr: BigInt(availUserAddr),
  };
}
