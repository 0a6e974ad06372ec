// The pool: entropy that waits to be handed out, in locked memory that is wiped as it goes.
//
// Data path: the limiter has granted a request's bytes; they are taken from here and copied to the guest. Batches
// save a system call for nearly every request. A byte is handed out once, to one request of one guest.
import type { OwnMemory } from '../../shared-memory/memory-region.js';
import { Mapping } from '../../shared-memory/mapping.js';
import type { EntropySource } from './source.js';

/** Two pages: a batch for 128 requests of 64 bytes. A power of two, so that positions wrap by a mask. */
const POOL_BYTES = 8192;
/** Refilled between requests once this much is free: some 5 us in one call, while the guest is busy. */
const TOP_UP_BYTES = 2048;
/** What is handed out is rounded up to whole words, so that copies stay aligned; the rest is wiped unused. */
const WORD_MASK = 3;
/** Where a call into the runtime to wipe pays. */
const FILL_FROM_BYTES = 256;

/** A ring of waiting bytes that several devices of one thread draw from. */
export class EntropyPool {
  /** The waiting bytes themselves; the next ones begin at {@link offset}. */
  readonly memory: OwnMemory;
  /** False when the memory lock limit did not allow to lock the pool in RAM. */
  readonly locked: boolean;
  private readonly sources: readonly EntropySource[];
  private readonly mapping: Mapping;
  private readonly onFailure: (source: EntropySource, result: number) => void;
  /** Positions of the next byte to store and to hand out, both less one lap at a time; their difference waits. */
  private stored = 0;
  private taken = 0;

  /** Sources in order of preference. `onFailure` is told of each failed read. */
  constructor(sources: readonly EntropySource[], onFailure: (source: EntropySource, result: number) => void) {
    const { mapping, locked } = Mapping.forSecrets(POOL_BYTES);
    const bytes = mapping.view(0, POOL_BYTES);
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, POOL_BYTES / 4);
    this.memory = { bytes, words, address: mapping.address };
    this.mapping = mapping;
    this.locked = locked;
    this.sources = sources;
    this.onFailure = onFailure;
  }

  /** Where the next bytes begin in {@link memory}. */
  get offset(): number {
    return this.taken;
  }

  /** Bytes that can be had at {@link offset} without a gap, after a refill if there are none; 0: no source has any. */
  ready(): number {
    if (this.stored === this.taken) this.refill();
    return Math.min(this.stored - this.taken, POOL_BYTES - this.offset);
  }

  /** Hands out `length` bytes at {@link offset}, at most what ready() gave: the caller has copied them; they are wiped. */
  take(length: number): void {
    const offset = this.offset;
    const rounded = (length + WORD_MASK) & ~WORD_MASK;
    const { words } = this.memory;
    // A loop: TypedArray.prototype.fill costs a call into the runtime, more than the few words of most requests.
    if (rounded > FILL_FROM_BYTES) words.fill(0, offset >> 2, (offset + rounded) >> 2);
    else for (let word = offset >> 2; word < (offset + rounded) >> 2; word++) words[word] = 0;
    this.taken += rounded;
    if (this.taken >= POOL_BYTES) {
      this.taken -= POOL_BYTES;
      this.stored -= POOL_BYTES;
    }
  }

  /** Refills between requests, when enough is free to be worth a system call. */
  topUp(): void {
    if (POOL_BYTES - (this.stored - this.taken) >= TOP_UP_BYTES) this.refill();
  }

  /** One read from the first source that has bytes. */
  private refill(): void {
    const offset = this.stored & (POOL_BYTES - 1);
    const room = Math.min(POOL_BYTES - (this.stored - this.taken), POOL_BYTES - offset);
    for (let i = 0; i < this.sources.length; i++) {
      const source = this.sources[i];
      if (source === undefined) return;
      const got = source.read(this.memory.address + offset, room);
      // Whole words only: the odd bytes of a short read are dropped and overwritten by the next.
      if (got > WORD_MASK) {
        this.stored += got & ~WORD_MASK;
        return;
      }
      if (got < 0) this.onFailure(source, got);
    }
  }

  /** Wipes what waits and gives the memory back. */
  close(): void {
    this.memory.bytes.fill(0);
    this.mapping.unmap();
  }
}
