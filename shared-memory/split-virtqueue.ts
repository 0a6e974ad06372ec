// The split virtqueue seen from the device: peek at a request, fill its buffers, complete it, publish, signal.
//
// Data path: this is where a guest's request is found and where the answer becomes visible to the guest. A
// request is only peeked until it can be served, so everything that a restarted daemon needs stays in the ring.
// Source: virtio-v1.3 §2.7. The queue trusts nothing that it reads: each field is copied once, then checked.
import type { GuestMemory } from './guest-memory.js';
import { NativeMemory } from './ffi.js';
import type { OwnMemory } from './memory-region.js';
import { DESCRIPTOR_BYTES, type Descriptor, type RingMemory } from './ring-memory.js';

/** Descriptor flags. Source: virtio-v1.3 §2.7.5. Other bits are reserved and ignored. */
const DESC_F_NEXT = 1;
const DESC_F_WRITE = 2;
const DESC_F_INDIRECT = 4;
/** Source: virtio-v1.3 §2.7.6.1. */
const AVAIL_F_NO_INTERRUPT = 1;
/** Source: virtio-v1.3 §2.7.8. */
const USED_F_NO_NOTIFY = 1;
const INDEX_MASK = 0xffff;

/** Largest queue. Source: virtio-v1.3 §2.7. */
export const MAX_QUEUE_SIZE = 32768;
/** Largest sum of one chain's lengths. Source: virtio-v1.3 §2.7.4.1. */
const MAX_CHAIN_BYTES = 2 ** 32;
/**
 * Descriptors of one chain, indirect ones included. QEMU's bound as well; a Linux guest uses one. More would only be a
 * way to keep the daemon busy, and in guarded memory, where each descriptor is a system call, even fewer will do.
 */
const MAX_CHAIN_DESCRIPTORS = 1024;
const MAX_GUARDED_CHAIN_DESCRIPTORS = 128;
/** Most bytes that are given to one request, so that a greedy guest does not delay the others. Ours. */
export const MAX_REQUEST_BYTES = 65536;

/** What {@link SplitVirtqueue.peek} found, when it is not a number of bytes. */
export const Peek = {
  /** Nothing is available. */
  Empty: 0,
  /** The chain breaks a rule: complete it with 0 bytes. */
  Malformed: -1,
  /** The ring itself breaks a rule: an index jumped or a head is out of range. Stop the ring. */
  Corrupt: -2,
  /** Guarded memory has vanished. Stop the ring. */
  Vanished: -3,
} as const;

/** What the driver negotiated, as far as the ring's behaviour depends on it. */
export interface RingFeatures {
  readonly indirectDesc: boolean;
  readonly eventIdx: boolean;
  readonly notifyOnEmpty: boolean;
}

/** The device-writable parts of the peeked chain, shared by all queues of a thread: valid until the next peek. */
class Chain {
  readonly addressHigh = new Uint32Array(MAX_CHAIN_DESCRIPTORS);
  readonly addressLow = new Uint32Array(MAX_CHAIN_DESCRIPTORS);
  readonly length = new Uint32Array(MAX_CHAIN_DESCRIPTORS);
  parts = 0;
  totalBytes = 0;
  /** Descriptors walked, the measure of work that a chain makes. */
  walked = 0;
}
const chain = new Chain();
const descriptor: Descriptor = { addressHigh: 0, addressLow: 0, length: 0, flags: 0, next: 0 };
const indirectEntry = new NativeMemory(DESCRIPTOR_BYTES);

/** A running split virtqueue. Made when the ring starts, dropped when it stops; holds no fd. */
export class SplitVirtqueue {
  readonly size: number;
  private readonly ring: RingMemory;
  private readonly memory: GuestMemory;
  private features: RingFeatures;
  private readonly maxChain: number;
  /** Next entry of the available ring to serve; equals the number of completed requests modulo 2^16. */
  private lastAvail: number;
  /** avail.idx as last loaded: requests up to here are known to be there, so it is loaded once a batch. */
  private seenAvail: number;
  /** Unknown at the start: whoever served this ring before may have left the driver told not to kick. */
  private kicksSuppressed: boolean | undefined;
  private nextUsed: number;
  private publishedUsed: number;
  /** used.idx when the driver was last looked at for a signal. One signal is owed at the start: the daemon before
   *  us may have died between publishing and signalling. */
  private signalledUsed: number;
  private signalOwed = true;
  private corruption = '';
  /** Head of the peeked chain, fetched once: the driver may rewrite its entry meanwhile. */
  private head = 0;

  /**
   * `base` is the front-end's SET_VRING_BASE. Requests complete strictly in order, so used.idx tells exactly
   * which were served: where the front-end's base is a little off (a VMM that reconnects sends avail.idx, or
   * read used.idx before the last request was completed), the queue goes on from used.idx.
   */
  constructor(
    size: number,
    ring: RingMemory,
    memory: GuestMemory,
    start: { base: number; features: RingFeatures },
  ) {
    this.size = size;
    this.ring = ring;
    this.memory = memory;
    this.features = start.features;
    this.maxChain = ring.guarded ? MAX_GUARDED_CHAIN_DESCRIPTORS : MAX_CHAIN_DESCRIPTORS;
    const used = ring.usedIndex();
    const skipped = (start.base - used) & INDEX_MASK;
    this.lastAvail = skipped <= size || skipped > INDEX_MASK - size ? used : start.base;
    this.seenAvail = this.lastAvail;
    this.nextUsed = used;
    this.publishedUsed = used;
    this.signalledUsed = used;
  }

  /** The next index to serve: what GET_VRING_BASE answers. */
  get base(): number {
    return this.lastAvail;
  }

  /** What was wrong with a ring that {@link peek} called corrupt, for the log. */
  get corruptionReason(): string {
    return this.corruption;
  }

  /** True when guarded memory vanished during any access. */
  hasVanished(): boolean {
    return this.ring.hasVanished();
  }

  /** True when the ring has never been written by a driver: all of its first descriptor and avail.idx are 0. */
  looksUntouched(): boolean {
    this.ring.descriptor(0, descriptor);
    const blank = descriptor.addressHigh + descriptor.addressLow + descriptor.length + descriptor.flags === 0;
    return blank && this.ring.availIndex() === 0;
  }

  /** Takes newly negotiated features into use from the next pass on; the driver is told of all work once. */
  useFeatures(features: RingFeatures): void {
    this.features = features;
    this.signalOwed = true;
    this.kicksSuppressed = false;
    this.ring.storeUsedFlags(0);
  }

  /** True when the driver has made something available. Costs one load, or none within a batch. */
  hasWork(): boolean {
    if (this.seenAvail === this.lastAvail) this.seenAvail = this.ring.availIndex();
    return this.seenAvail !== this.lastAvail;
  }

  /**
   * Looks at the next request without taking it: the bytes it has room for (1 to {@link MAX_REQUEST_BYTES}), or
   * one of {@link Peek}. The whole chain is checked before any byte is written.
   */
  peek(): number {
    if (!this.hasWork()) return this.ring.hasVanished() ? Peek.Vanished : Peek.Empty;
    if (this.ring.hasVanished()) return Peek.Vanished;
    const pending = (this.seenAvail - this.lastAvail) & INDEX_MASK;
    if (pending > this.size) {
      this.corruption = `expected avail.idx at most ${this.size} ahead, got ${pending}`;
      return Peek.Corrupt;
    }
    this.head = this.ring.availEntry(this.lastAvail & (this.size - 1));
    if (this.head >= this.size && !this.ring.hasVanished()) {
      this.corruption = `expected a head below ${this.size}, got ${this.head}`;
      return Peek.Corrupt;
    }
    const sound = this.walk(this.head);
    if (this.ring.hasVanished()) return Peek.Vanished;
    return sound && chain.totalBytes > 0 ? Math.min(chain.totalBytes, MAX_REQUEST_BYTES) : Peek.Malformed;
  }

  /** Descriptors that the last peek walked. */
  get walked(): number {
    return chain.walked;
  }

  /** Walks the chain from `head` into the shared copy; false when it breaks a rule. */
  private walk(head: number): boolean {
    chain.parts = 0;
    chain.totalBytes = 0;
    chain.walked = 0;
    let index = head;
    const most = Math.min(this.size, this.maxChain);
    for (let step = 0; step < most; step++) {
      this.ring.descriptor(index, descriptor);
      chain.walked++;
      const flags = descriptor.flags;
      if ((flags & DESC_F_INDIRECT) !== 0) {
        // A chain may end in an indirect table, and only end: §2.7.5.3.1.
        return (flags & DESC_F_NEXT) === 0 && this.features.indirectDesc && this.walkIndirect();
      }
      const next = descriptor.next;
      if (!this.addPart()) return false;
      if ((flags & DESC_F_NEXT) === 0) return true;
      if (next >= this.size) return false;
      index = next;
    }
    return false;
  }

  /** Walks the table that the current descriptor points to. */
  private walkIndirect(): boolean {
    const { addressHigh, addressLow, length } = descriptor;
    const entries = length / DESCRIPTOR_BYTES;
    if (!Number.isInteger(entries) || entries === 0 || entries > this.maxChain) return false;
    if (!this.memory.covers(addressHigh, addressLow, length)) return false;
    let index = 0;
    // The descriptor of the table itself has been counted, and is not part of the bound.
    for (let step = 0; step < entries && chain.walked <= this.maxChain; step++) {
      const at = addressLow + index * DESCRIPTOR_BYTES;
      if (this.memory.read(addressHigh, at, indirectEntry, DESCRIPTOR_BYTES) !== 0) return false;
      descriptor.addressLow = (indirectEntry.words[0] ?? 0) >>> 0;
      descriptor.addressHigh = (indirectEntry.words[1] ?? 0) >>> 0;
      descriptor.length = (indirectEntry.words[2] ?? 0) >>> 0;
      descriptor.flags = (indirectEntry.words[3] ?? 0) & 0xffff;
      descriptor.next = (indirectEntry.words[3] ?? 0) >>> 16;
      chain.walked++;
      if ((descriptor.flags & DESC_F_INDIRECT) !== 0) return false;
      const { flags, next } = descriptor;
      if (!this.addPart()) return false;
      if ((flags & DESC_F_NEXT) === 0) return true;
      if (next >= entries) return false;
      index = next;
    }
    return false;
  }

  /**
   * Adds the current descriptor to the chain's copy. Readable parts are passed over, as QEMU does, but may not
   * follow writable ones (§2.7.4.2); empty parts are passed over; a part outside of guest memory is refused.
   */
  private addPart(): boolean {
    const { addressHigh, addressLow, length } = descriptor;
    if ((descriptor.flags & DESC_F_WRITE) === 0) return chain.parts === 0;
    if (length === 0) return true;
    if (!this.memory.covers(addressHigh, addressLow, length)) return false;
    chain.addressHigh[chain.parts] = addressHigh;
    chain.addressLow[chain.parts] = addressLow;
    chain.length[chain.parts] = length;
    chain.parts++;
    chain.totalBytes += length;
    return chain.totalBytes <= MAX_CHAIN_BYTES;
  }

  /**
   * Copies `length` bytes of `source` into the peeked request's buffers, from byte `at` of the request on.
   *
   * `at + length` is at most what peek() gave. Gives 0, or a negated error number when memory has vanished.
   */
  fill(at: number, source: OwnMemory, sourceOffset: number, length: number): number {
    let skip = at;
    let copied = 0;
    for (let part = 0; part < chain.parts && copied < length; part++) {
      const partLength = chain.length[part] ?? 0;
      if (skip >= partLength) {
        skip -= partLength;
        continue;
      }
      const span = Math.min(partLength - skip, length - copied);
      const low = (chain.addressLow[part] ?? 0) + skip;
      const failed = this.memory.write(
        chain.addressHigh[part] ?? 0,
        low,
        source,
        sourceOffset + copied,
        span,
      );
      if (failed !== 0) return failed;
      copied += span;
      skip = 0;
    }
    return 0;
  }

  /** Takes the peeked request out of the ring, `written` bytes long; visible to the driver after publish(). */
  complete(written: number): void {
    this.ring.storeUsedElement(this.nextUsed & (this.size - 1), this.head, written);
    this.nextUsed = (this.nextUsed + 1) & INDEX_MASK;
    this.lastAvail = (this.lastAvail + 1) & INDEX_MASK;
  }

  /** Makes all completed requests visible to the driver. */
  publish(): void {
    if (this.nextUsed === this.publishedUsed) return;
    this.publishedUsed = this.nextUsed;
    this.ring.storeUsedIndex(this.nextUsed);
  }

  /** Whether the driver wants to be told of what was published since the last signal. Asked once a pass. */
  needsSignal(): boolean {
    const before = this.signalledUsed;
    const now = this.publishedUsed;
    const owed = this.signalOwed;
    this.signalOwed = false;
    this.signalledUsed = now;
    if (owed) return true;
    if (now === before) return false;
    if (this.features.notifyOnEmpty && !this.hasWork()) return true;
    if (!this.features.eventIdx) return (this.ring.availFlags() & AVAIL_F_NO_INTERRUPT) === 0;
    // virtio-v1.3 §2.7.7.2: has used.idx passed used_event since the last signal?
    const passed = (now - this.ring.usedEvent() - 1) & INDEX_MASK;
    return passed < ((now - before) & INDEX_MASK);
  }

  /**
   * Asks the driver for a kick at the next request, then looks once more; true when work came meanwhile. Without
   * that look behind the barrier a request made between the last peek and this store would wait for ever.
   */
  enableKicks(): boolean {
    if (this.features.eventIdx) this.ring.storeAvailEvent(this.lastAvail);
    else if (this.kicksSuppressed !== false) this.ring.storeUsedFlags(0);
    this.kicksSuppressed = false;
    return this.hasWork();
  }

  /**
   * Before a signal: the driver that it wakes, on this very CPU perhaps, need not kick for its next request, because a look
   * follows. An event index is passed already; in guarded memory the flag would cost what it saves.
   */
  spareKicks(): void {
    if (!this.features.eventIdx && !this.ring.guarded) this.suppressKicks();
  }

  /** Asks the driver not to kick, while the ring is being polled. */
  suppressKicks(): void {
    if (this.kicksSuppressed === true) return;
    this.kicksSuppressed = true;
    // An event index that has just been passed is not reached again for 2^16 requests: §2.7.10.
    if (this.features.eventIdx) this.ring.storeAvailEvent((this.lastAvail - 1) & INDEX_MASK);
    else this.ring.storeUsedFlags(USED_F_NO_NOTIFY);
  }
}
