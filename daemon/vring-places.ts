// Where the parts of a ring lie: the addresses of SET_VRING_ADDR, checked and found in the memory table.
import {
  asFrontendVirtAddr,
  type FrontendVirtAddr,
  type GuestMemory,
  type RegionPlace,
} from '../shared-memory/guest-memory.js';
import { ringBytes, type RingPlaces } from '../shared-memory/ring-memory.js';
import { Fault } from '../protocol/fault.js';

/** SET_VRING_ADDR flag bit 0, VHOST_VRING_F_LOG: accepted, nothing is logged (LOG_ALL is never offered). */
const VRING_F_LOG = 1;
/** Alignment of each part. Source: virtio-v1.3 §2.7. */
const ALIGNMENT = { descUserAddr: 16n, availUserAddr: 2n, usedUserAddr: 4n } as const;

/** Where the front-end says the parts of a ring lie; its own virtual addresses. */
export interface RingAddresses {
  readonly flags: number;
  readonly descUserAddr: bigint;
  readonly usedUserAddr: bigint;
  readonly availUserAddr: bigint;
}

/** A fault where the addresses cannot be right in any memory table. */
export function checkAddresses(addresses: RingAddresses): Fault | undefined {
  if ((addresses.flags & ~VRING_F_LOG) !== 0) {
    return refuse('vring_flags', `expected vring flags 0 or 1, got 0x${addresses.flags.toString(16)}`);
  }
  for (const part of ['descUserAddr', 'availUserAddr', 'usedUserAddr'] as const) {
    if (addresses[part] % ALIGNMENT[part] !== 0n) return misaligned(part, addresses[part], '');
  }
  return undefined;
}

/** The places of a ring of `size` entries; a fault where a part is not within one region. */
export function findPlaces(addresses: RingAddresses, memory: GuestMemory, size: number): RingPlaces | Fault {
  const find = (name: keyof typeof ringBytes, part: keyof typeof ALIGNMENT): RegionPlace | Fault => {
    const address = asFrontendVirtAddr(addresses[part]);
    const place = memory.findFrontend(address, ringBytes[name](size));
    if (place === undefined) return uncovered(name, address);
    // An odd file offset puts an aligned address elsewhere here, where an atomic access would trap or lock the bus.
    return place.region.addressAt(place.offset) % Number(ALIGNMENT[part]) === 0
      ? place
      : misaligned(part, addresses[part], ' behind an mmap offset that is off its page');
  };
  const descTable = find('descTable', 'descUserAddr');
  const availRing = find('availRing', 'availUserAddr');
  const usedRing = find('usedRing', 'usedUserAddr');
  if (descTable instanceof Fault) return descTable;
  if (availRing instanceof Fault) return availRing;
  return usedRing instanceof Fault ? usedRing : { descTable, availRing, usedRing };
}

function refuse(code: string, message: string): Fault {
  return new Fault('request', code, message);
}

function uncovered(part: string, address: FrontendVirtAddr): Fault {
  return refuse(
    'vring_uncovered',
    `expected the ${part} within one memory region, got front-end address 0x${address.toString(16)}`,
  );
}

function misaligned(part: keyof typeof ALIGNMENT, address: bigint, why: string): Fault {
  return refuse(
    'vring_alignment',
    `expected ${part} aligned to ${ALIGNMENT[part].toString()}, got 0x${address.toString(16)}${why}`,
  );
}
