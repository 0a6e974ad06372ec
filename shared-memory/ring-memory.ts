// The three parts of a split virtqueue as they lie in guest memory, and the one place that states their ordering.
//
// Ordering: the driver fills a ring entry, then publishes avail.idx; we load avail.idx with Atomics (acquire) and
// only then the entry. We store a used element, then publish used.idx with Atomics (release). Between publishing
// an index and reading the other side's event field stands a full barrier: a sequentially consistent store
// followed by a sequentially consistent load. Source: virtio-v1.3 §2.7.6, §2.7.8, §2.7.10 and §2.7.13.
//
// All fields are little-endian (virtio-v1.3 §2.7); the daemon refuses to start on a big-endian host.
import type { RegionPlace } from './guest-memory.js';
import { NativeMemory } from './ffi.js';
import * as libc from './libc.js';

/** A descriptor, copied once; what is checked is this copy. Source: virtio-v1.3 §2.7.5. */
export interface Descriptor {
  addressHigh: number;
  addressLow: number;
  length: number;
  flags: number;
  next: number;
}

export const DESCRIPTOR_BYTES = 16;
const RING_HEADER_BYTES = 4;
const AVAIL_ENTRY_BYTES = 2;
const USED_ELEMENT_BYTES = 8;
const EVENT_BYTES = 2;

/** Bytes of each part, with the event field that stands behind it. Source: virtio-v1.3 §2.7, §2.7.6, §2.7.8. */
export const ringBytes = {
  descTable: (size: number): number => size * DESCRIPTOR_BYTES,
  availRing: (size: number): number => RING_HEADER_BYTES + size * AVAIL_ENTRY_BYTES + EVENT_BYTES,
  usedRing: (size: number): number => RING_HEADER_BYTES + size * USED_ELEMENT_BYTES + EVENT_BYTES,
} as const;

/** Where the parts of a ring lie. */
export interface RingPlaces {
  readonly descTable: RegionPlace;
  readonly availRing: RegionPlace;
  readonly usedRing: RegionPlace;
}

/** Access to a ring of `size` entries; slots are already reduced modulo the size. */
export interface RingMemory {
  /** True when each access is a system call. */
  readonly guarded: boolean;
  /** True once guarded memory has vanished; everything read since then is 0 and means nothing. */
  hasVanished(): boolean;
  availFlags(): number;
  availIndex(): number;
  availEntry(slot: number): number;
  usedEvent(): number;
  descriptor(index: number, into: Descriptor): void;
  usedIndex(): number;
  storeUsedFlags(flags: number): void;
  storeUsedElement(slot: number, id: number, length: number): void;
  storeUsedIndex(index: number): void;
  storeAvailEvent(index: number): void;
}

/** Opens the ring: directly when all three parts lie in memory that cannot shrink, guarded otherwise. */
export function openRingMemory(places: RingPlaces, size: number): RingMemory {
  const direct =
    places.descTable.region.direct && places.availRing.region.direct && places.usedRing.region.direct;
  return direct ? new DirectRingMemory(places, size) : new GuardedRingMemory(places, size);
}

function viewOfPart(place: RegionPlace, bytes: number): Buffer {
  return place.region.view(place.offset, bytes);
}

/** Stores descriptor words; `flags` and `next` share the fourth. */
function unpack(words: Int32Array, at: number, into: Descriptor): void {
  into.addressLow = (words[at] ?? 0) >>> 0;
  into.addressHigh = (words[at + 1] ?? 0) >>> 0;
  into.length = (words[at + 2] ?? 0) >>> 0;
  const flagsAndNext = words[at + 3] ?? 0;
  into.flags = flagsAndNext & 0xffff;
  into.next = flagsAndNext >>> 16;
}

/** A ring in memory that stays: plain loads and stores, 10 ns each. */
class DirectRingMemory implements RingMemory {
  readonly guarded = false;
  private readonly size: number;
  private readonly desc: Int32Array;
  private readonly avail: Uint16Array;
  private readonly used16: Uint16Array;
  private readonly used32: Int32Array;

  constructor(places: RingPlaces, size: number) {
    this.size = size;
    const desc = viewOfPart(places.descTable, ringBytes.descTable(size));
    const avail = viewOfPart(places.availRing, ringBytes.availRing(size));
    const used = viewOfPart(places.usedRing, ringBytes.usedRing(size));
    this.desc = new Int32Array(desc.buffer, desc.byteOffset, size * (DESCRIPTOR_BYTES / 4));
    this.avail = new Uint16Array(avail.buffer, avail.byteOffset, avail.length / 2);
    this.used16 = new Uint16Array(used.buffer, used.byteOffset, used.length / 2);
    this.used32 = new Int32Array(used.buffer, used.byteOffset, 1 + size * (USED_ELEMENT_BYTES / 4));
  }

  hasVanished(): boolean {
    return false;
  }
  availFlags(): number {
    return Atomics.load(this.avail, 0);
  }
  availIndex(): number {
    return Atomics.load(this.avail, 1);
  }
  availEntry(slot: number): number {
    return this.avail[2 + slot] ?? 0;
  }
  usedEvent(): number {
    return Atomics.load(this.avail, 2 + this.size);
  }
  descriptor(index: number, into: Descriptor): void {
    unpack(this.desc, index * (DESCRIPTOR_BYTES / 4), into);
  }
  usedIndex(): number {
    return Atomics.load(this.used16, 1);
  }
  storeUsedFlags(flags: number): void {
    Atomics.store(this.used16, 0, flags);
  }
  storeUsedElement(slot: number, id: number, length: number): void {
    this.used32[1 + 2 * slot] = id;
    this.used32[2 + 2 * slot] = length;
  }
  storeUsedIndex(index: number): void {
    Atomics.store(this.used16, 1, index);
  }
  storeAvailEvent(index: number): void {
    Atomics.store(this.used16, 2 + 4 * this.size, index);
  }
}

/** A ring in memory that may vanish: every access is a system call that fails instead of killing the process. */
class GuardedRingMemory implements RingMemory {
  readonly guarded = true;
  private vanished = false;
  private readonly size: number;
  private readonly descAddress: number;
  private readonly availAddress: number;
  private readonly usedAddress: number;
  private readonly cell = new NativeMemory(DESCRIPTOR_BYTES);
  /** Any locked operation is a full barrier; the copies by the kernel are not. */
  private readonly fence = new Int32Array(1);

  constructor(places: RingPlaces, size: number) {
    this.size = size;
    this.descAddress = places.descTable.region.addressAt(places.descTable.offset);
    this.availAddress = places.availRing.region.addressAt(places.availRing.offset);
    this.usedAddress = places.usedRing.region.addressAt(places.usedRing.offset);
  }

  private fetch(address: number, length: number): void {
    if (libc.guardedRead(this.cell.address, address, length) === length) return;
    this.vanished = true;
    this.cell.bytes.fill(0);
  }

  private store(address: number, length: number): void {
    Atomics.add(this.fence, 0, 1);
    if (libc.guardedWrite(this.cell.address, address, length) !== length) this.vanished = true;
    Atomics.add(this.fence, 0, 1);
  }

  private load16(address: number): number {
    this.fetch(address, 2);
    Atomics.add(this.fence, 0, 1);
    return (this.cell.words[0] ?? 0) & 0xffff;
  }

  private store16(address: number, value: number): void {
    this.cell.words[0] = value;
    this.store(address, 2);
  }

  hasVanished(): boolean {
    return this.vanished;
  }
  availFlags(): number {
    return this.load16(this.availAddress);
  }
  availIndex(): number {
    return this.load16(this.availAddress + 2);
  }
  availEntry(slot: number): number {
    return this.load16(this.availAddress + RING_HEADER_BYTES + slot * AVAIL_ENTRY_BYTES);
  }
  usedEvent(): number {
    return this.load16(this.availAddress + RING_HEADER_BYTES + this.size * AVAIL_ENTRY_BYTES);
  }
  descriptor(index: number, into: Descriptor): void {
    this.fetch(this.descAddress + index * DESCRIPTOR_BYTES, DESCRIPTOR_BYTES);
    unpack(this.cell.words, 0, into);
  }
  usedIndex(): number {
    return this.load16(this.usedAddress + 2);
  }
  storeUsedFlags(flags: number): void {
    this.store16(this.usedAddress, flags);
  }
  storeUsedElement(slot: number, id: number, length: number): void {
    this.cell.words[0] = id;
    this.cell.words[1] = length;
    this.store(this.usedAddress + RING_HEADER_BYTES + slot * USED_ELEMENT_BYTES, USED_ELEMENT_BYTES);
  }
  storeUsedIndex(index: number): void {
    this.store16(this.usedAddress + 2, index);
  }
  storeAvailEvent(index: number): void {
    this.store16(this.usedAddress + RING_HEADER_BYTES + this.size * USED_ELEMENT_BYTES, index);
  }
}
