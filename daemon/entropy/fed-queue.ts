// Entropy on its way from a thread that may wait to the data plane, which may not.
//
// One producer (reader-thread.ts), one consumer (FedSource). The bytes lie in locked memory that both threads map at
// the same address; the positions lie in a SharedArrayBuffer, so that the producer can sleep while the queue is full.
import { Mapping } from '../../shared-memory/mapping.js';
import { viewOf } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';
import type { EntropySource } from './source.js';

/** Two refills of the pool. A power of two. */
export const FED_QUEUE_BYTES = 16_384;

/** The pool takes whole words and drops the rest of a read; what is less waits here for its other bytes. */
const WORD_MASK = 3;

/** Words of the control block. `Moves` counts what may end the producer's wait: room that was made, and the stop. */
const Control = { Stored: 0, Taken: 1, Stop: 2, WakeWanted: 3, Moves: 4 } as const;
const CONTROL_BYTES = 4 * Object.keys(Control).length;

/** What both ends need to find the queue. */
export interface FedQueuePlace {
  readonly address: number;
  readonly control: SharedArrayBuffer;
}

/** Makes a queue, for the life of the process. */
export function createFedQueue(): FedQueuePlace {
  const { mapping } = Mapping.forSecrets(FED_QUEUE_BYTES);
  return { address: mapping.address, control: new SharedArrayBuffer(CONTROL_BYTES) };
}

/** The end that stores, in a thread that may wait. */
export class FedQueueProducer {
  private readonly control: Int32Array;
  private readonly address: number;

  constructor(place: FedQueuePlace) {
    this.control = new Int32Array(place.control);
    this.address = place.address;
  }

  isStopped(): boolean {
    return Atomics.load(this.control, Control.Stop) !== 0;
  }

  /** Waits until there is room, or the queue is stopped (0): the bytes that fit at {@link storeAddress}. */
  waitForRoom(): number {
    for (;;) {
      // Loaded before the looks below: whatever changes after them changes this too, and the wait does not begin.
      const moves = Atomics.load(this.control, Control.Moves);
      const taken = Atomics.load(this.control, Control.Taken);
      const stored = Atomics.load(this.control, Control.Stored);
      if (this.isStopped()) return 0;
      const offset = stored & (FED_QUEUE_BYTES - 1);
      const room = Math.min(FED_QUEUE_BYTES - ((stored - taken) | 0), FED_QUEUE_BYTES - offset);
      if (room > 0) return room;
      Atomics.wait(this.control, Control.Moves, moves);
    }
  }

  /** Where the next bytes are to be stored. */
  get storeAddress(): number {
    return this.address + (Atomics.load(this.control, Control.Stored) & (FED_QUEUE_BYTES - 1));
  }

  /** Hands over `length` bytes that were stored; true when the data plane waits for them and must be woken. */
  handOver(length: number): boolean {
    Atomics.add(this.control, Control.Stored, length);
    return Atomics.exchange(this.control, Control.WakeWanted, 0) !== 0;
  }

  /** Sleeps, or until the queue is stopped. */
  sleep(ms: number): void {
    Atomics.wait(this.control, Control.Stop, 0, ms);
  }
}

/** Ends the producer: it wakes from whatever it waits for here. A read that never returns is beyond our reach. */
export function stopFedQueue(place: FedQueuePlace): void {
  const control = new Int32Array(place.control);
  Atomics.store(control, Control.Stop, 1);
  Atomics.add(control, Control.Moves, 1);
  Atomics.notify(control, Control.Stop);
  Atomics.notify(control, Control.Moves);
}

/** The end of the data plane: a source that never waits. */
export class FedSource implements EntropySource {
  readonly spec: string;
  private readonly control: Int32Array;
  private readonly address: number;
  private readonly bytes: Buffer;

  constructor(spec: string, place: FedQueuePlace) {
    this.spec = spec;
    this.control = new Int32Array(place.control);
    this.address = place.address;
    // SAFETY: the queue's mapping lives as long as the process.
    this.bytes = viewOf(place.address, FED_QUEUE_BYTES);
  }

  read(address: number, length: number): number {
    const taken = Atomics.load(this.control, Control.Taken);
    let waiting = this.wordsBehind(taken);
    if (waiting === 0) {
      // Ask to be woken, then look once more: a byte stored in between brings no wake-up.
      Atomics.store(this.control, Control.WakeWanted, 1);
      waiting = this.wordsBehind(taken);
      if (waiting === 0) return 0;
    }
    const offset = taken & (FED_QUEUE_BYTES - 1);
    const count = Math.min(waiting, length & ~WORD_MASK, FED_QUEUE_BYTES - offset);
    // SAFETY: `count` bytes lie within the queue at `offset`, and `length` bytes of the pool at `address`.
    libc.memcpy(address, this.address + offset, count);
    this.bytes.fill(0, offset, offset + count);
    Atomics.add(this.control, Control.Taken, count);
    Atomics.add(this.control, Control.Moves, 1);
    Atomics.notify(this.control, Control.Moves);
    return count;
  }

  /** Bytes that wait behind a position, in whole words. */
  private wordsBehind(taken: number): number {
    return (Atomics.load(this.control, Control.Stored) - taken) & ~WORD_MASK;
  }

  close(): void {
    this.bytes.fill(0);
  }
}
