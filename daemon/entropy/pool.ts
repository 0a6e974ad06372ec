// The pool: entropy that waits to be handed out, in locked memory that is wiped as it goes.
//
// Data path: the limiter has granted a request's bytes; they are taken from here and copied to the guest. Batches
// save a system call for nearly every request. A byte is handed out once, to one request of one guest. Every byte has
// passed its source's tests before it comes here.
import type { OwnMemory } from '../../shared-memory/memory-region.js';
import { Mapping } from '../../shared-memory/mapping.js';
import type { EntropySource } from './source.js';

/** Two pages: a batch for 128 requests of 64 bytes. A power of two, so that positions wrap by a mask. */
const POOL_BYTES = 8192;
/** Refilled between requests once this much is free: some 7 us in one go, while the guest is busy. */
const TOP_UP_BYTES = 2560;
/** What is handed out is rounded up to whole words, so that copies stay aligned; the rest is wiped unused. */
const WORD_MASK = 3;
/** Where a call into the runtime to wipe pays. */
const FILL_FROM_BYTES = 256;

/** Where a pool's bytes come from. */
export interface PoolSources {
  /** In order of preference. */
  readonly sources: readonly EntropySource[];
  /** Its bytes are mixed in by XOR: what is handed out is never worse than either. Undefined: no mixing. */
  readonly mixedWith: EntropySource | undefined;
}

/** From the source of one spec to that of another. */
export type SourceSwitch = (to: string, from: string) => void;

/** A ring of waiting bytes that several devices of one thread draw from. */
export class EntropyPool {
  /** The waiting bytes themselves; the next ones begin at {@link offset}. */
  readonly memory: OwnMemory;
  /** False when the memory lock limit did not allow to lock the pool in RAM. */
  readonly locked: boolean;
  private readonly sources: readonly EntropySource[];
  private readonly alarms: number[];
  private readonly mixer: Mixer | undefined;
  private readonly mapping: Mapping;
  private readonly onSwitch: SourceSwitch;
  /** The source that the last bytes came from. */
  private serving: EntropySource | undefined;
  /** Positions of the next byte to store and to hand out, both less one lap at a time; their difference waits. */
  private stored = 0;
  private taken = 0;

  /** `onSwitch` is told when bytes come from another source than the last ones did, or at first not from the preferred one. */
  constructor({ sources, mixedWith }: PoolSources, onSwitch: SourceSwitch) {
    const { mapping, locked } = Mapping.forSecrets(POOL_BYTES);
    this.memory = ownMemory(mapping);
    this.mapping = mapping;
    this.mixer = mixedWith && new Mixer(mixedWith);
    this.locked = locked && this.mixer?.locked !== false;
    this.sources = sources;
    this.alarms = sources.map((source) => source.alarms);
    this.onSwitch = onSwitch;
    this.serving = sources[0];
  }

  /** Where the next bytes begin in {@link memory}. */
  get offset(): number {
    return this.taken;
  }

  /**
   * Bytes that can be had at {@link offset} without a gap, after a refill if there are none; 0: no source has any. Looks for
   * alarms each time: a guest may come back long after the last refill.
   */
  ready(): number {
    this.dropAfterAlarm();
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
    if (POOL_BYTES - (this.stored - this.taken) < TOP_UP_BYTES) return;
    this.dropAfterAlarm();
    this.refill();
  }

  /** Bytes from the first source that has any. */
  private refill(): void {
    const offset = this.stored & (POOL_BYTES - 1);
    const room = Math.min(POOL_BYTES - (this.stored - this.taken), POOL_BYTES - offset);
    for (let i = 0; i < this.sources.length; i++) {
      const source = this.sources[i];
      if (source === undefined) return;
      const got = source.read(this.memory.address + offset, room);
      if (got === 0) continue;
      this.stored += this.mixer === undefined ? got : this.mixer.mixInto(this.memory.words, offset >> 2, got);
      if (source !== this.serving) {
        this.onSwitch(source.spec, this.serving?.spec ?? '');
        this.serving = source;
      }
      return;
    }
  }

  /** A source that has failed a test since the last look may have given part of what waits: none of it is used. */
  private dropAfterAlarm(): void {
    for (let i = 0; i < this.sources.length; i++) {
      const alarms = this.sources[i]?.alarms ?? 0;
      if (alarms === this.alarms[i]) continue;
      this.alarms[i] = alarms;
      this.memory.bytes.fill(0);
      this.stored = this.taken;
    }
  }

  /** Wipes what waits and gives the memory back. */
  close(): void {
    this.memory.bytes.fill(0);
    this.mapping.unmap();
    this.mixer?.close();
  }
}

/** Mixes a second source into bytes of the first. */
class Mixer {
  readonly locked: boolean;
  private readonly source: EntropySource;
  private readonly mapping: Mapping;
  private readonly memory: OwnMemory;

  constructor(source: EntropySource) {
    const { mapping, locked } = Mapping.forSecrets(POOL_BYTES);
    this.source = source;
    this.mapping = mapping;
    this.memory = ownMemory(mapping);
    this.locked = locked;
  }

  /** XORs `length` bytes from word `first` on: the bytes that are mixed; the rest is wiped, and lost. */
  mixInto(words: Int32Array, first: number, length: number): number {
    let mixed = 0;
    for (let got = -1; mixed < length && got !== 0; mixed += got) {
      got = this.source.read(this.memory.address + mixed, length - mixed);
    }
    const own = this.memory.words;
    for (let i = 0; i < mixed >> 2; i++) words[first + i] = (words[first + i] ?? 0) ^ (own[i] ?? 0);
    own.fill(0, 0, mixed >> 2);
    words.fill(0, first + (mixed >> 2), first + (length >> 2));
    return mixed;
  }

  close(): void {
    this.memory.bytes.fill(0);
    this.mapping.unmap();
  }
}

function ownMemory(mapping: Mapping): OwnMemory {
  const bytes = mapping.view(0, POOL_BYTES);
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, POOL_BYTES / 4);
  return { bytes, words, address: mapping.address };
}
