// Tested entropy on its way from a thread that may wait to the data plane, which may not.
//
// One producer (reader-thread.ts), one consumer (FedSource). The bytes lie in locked memory that both threads map at
// the same address; the positions lie in a SharedArrayBuffer, so that the producer can sleep while the queue is full.
import { Mapping } from '../../shared-memory/mapping.js';
import { viewOf } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';
import type { EntropySource } from './source.js';
import type { SourceStatus } from './source-status.js';

/** Some 2 ms of the fastest guest. A power of two. */
export const FED_QUEUE_BYTES = 32_768;

/** The producer is woken when no more than this waits. */
const REFILL_BELOW_BYTES = FED_QUEUE_BYTES / 2;

/** Words of the control block. `Moves` counts what may end the producer's wait: room that was made, the stop, a nudge. */
const Control = { Stored: 0, Taken: 1, Stop: 2, WakeWanted: 3, Moves: 4 } as const;
const CONTROL_BYTES = 4 * Object.keys(Control).length;

/** What both ends need to find the queue. */
export interface FedQueuePlace {
  readonly address: number;
  readonly control: SharedArrayBuffer;
  /** False when the memory lock limit did not allow to lock it in RAM. */
  readonly locked: boolean;
}

/** Makes a queue; see {@link freeFedQueue}. */
export function createFedQueue(): FedQueuePlace {
  const { mapping, locked } = Mapping.forSecrets(FED_QUEUE_BYTES);
  return { address: mapping.address, control: new SharedArrayBuffer(CONTROL_BYTES), locked };
}

/** The end that stores, in a thread that may wait. Multiples of 4 bytes go through. */
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

  /** Bytes that fit at {@link storeAddress}; 0 when it is full. */
  room(): number {
    const taken = Atomics.load(this.control, Control.Taken);
    const stored = Atomics.load(this.control, Control.Stored);
    const offset = stored & (FED_QUEUE_BYTES - 1);
    return Math.min(FED_QUEUE_BYTES - ((stored - taken) | 0), FED_QUEUE_BYTES - offset);
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

  /**
   * Counts what may end a wait: room, the stop, a nudge. Loaded before these are looked at: whatever changes after the look
   * changes this too, and a wait for it does not begin.
   */
  moves(): number {
    return Atomics.load(this.control, Control.Moves);
  }

  /** Blocks the thread, `timeoutMs` at most, until something has moved since moves() gave `since`. */
  waitForMove(since: number, timeoutMs: number): void {
    Atomics.wait(this.control, Control.Moves, since, timeoutMs);
  }

  /** As {@link waitForMove}, but the thread's event loop turns meanwhile. */
  async moved(since: number, timeoutMs: number): Promise<void> {
    const wait = Atomics.waitAsync(this.control, Control.Moves, since, timeoutMs);
    if (wait.async) await wait.value;
  }

  /** Ends a wait of this very thread's. */
  nudge(): void {
    move(this.control);
  }
}

function move(control: Int32Array): void {
  Atomics.add(control, Control.Moves, 1);
  Atomics.notify(control, Control.Moves);
}

/** Resolves when the data plane has found the queue empty and waits; at once when it does already. */
export async function whenWanted(place: FedQueuePlace): Promise<void> {
  const wait = Atomics.waitAsync(new Int32Array(place.control), Control.WakeWanted, 0);
  if (wait.async) await wait.value;
}

/** True while the data plane waits for bytes of the queue. */
export function isWanted(place: FedQueuePlace): boolean {
  return Atomics.load(new Int32Array(place.control), Control.WakeWanted) !== 0;
}

/** Ends the producer's wait, so that it looks at its source again. */
export function nudgeFedQueue(place: FedQueuePlace): void {
  move(new Int32Array(place.control));
}

/** Ends the producer: it wakes from whatever it waits for here. A read that never returns is beyond our reach. */
export function stopFedQueue(place: FedQueuePlace): void {
  const control = new Int32Array(place.control);
  Atomics.store(control, Control.Stop, 1);
  move(control);
  // Nobody will want anything any more: whoever waits for that (whenWanted) goes on.
  Atomics.store(control, Control.WakeWanted, 1);
  Atomics.notify(control, Control.WakeWanted);
}

/** Wipes the queue and gives its memory back. SAFETY: both ends are closed, and the producer's thread has ended. */
export function freeFedQueue(place: FedQueuePlace): void {
  viewOf(place.address, FED_QUEUE_BYTES).fill(0);
  libc.munmap(place.address, FED_QUEUE_BYTES);
}

/** The end of the data plane: a source that never waits. */
export class FedSource implements EntropySource {
  readonly spec: string;
  private readonly control: Int32Array;
  private readonly address: number;
  private readonly bytes: Buffer;
  private readonly status: SourceStatus;
  private seenAlarms = 0;

  constructor(spec: string, place: FedQueuePlace, status: SourceStatus) {
    this.spec = spec;
    this.control = new Int32Array(place.control);
    this.address = place.address;
    this.status = status;
    // SAFETY: the queue's mapping is freed when this end is closed.
    this.bytes = viewOf(place.address, FED_QUEUE_BYTES);
  }

  get alarms(): number {
    return this.status.alarms;
  }

  read(address: number, length: number): number {
    // Looked at first: what is stored after the look has come after the alarm.
    const alarms = this.status.alarms;
    if (alarms !== this.seenAlarms) {
      this.seenAlarms = alarms;
      this.drop();
    }
    const taken = Atomics.load(this.control, Control.Taken);
    let waiting = this.waitingBehind(taken);
    if (waiting === 0) {
      // Ask to be woken, then look once more: a byte stored in between brings no wake-up.
      if (Atomics.exchange(this.control, Control.WakeWanted, 1) === 0)
        Atomics.notify(this.control, Control.WakeWanted);
      waiting = this.waitingBehind(taken);
      if (waiting === 0) return 0;
    }
    const offset = taken & (FED_QUEUE_BYTES - 1);
    const count = Math.min(waiting, length, FED_QUEUE_BYTES - offset);
    // SAFETY: `count` bytes lie within the queue at `offset`, and `length` bytes of the pool at `address`.
    libc.memcpy(address, this.address + offset, count);
    this.bytes.fill(0, offset, offset + count);
    Atomics.add(this.control, Control.Taken, count);
    // Waking the producer costs a system call: once for half a queue, and not for each read.
    if (waiting - count <= REFILL_BELOW_BYTES) move(this.control);
    return count;
  }

  /** Bytes that wait behind a position. */
  private waitingBehind(taken: number): number {
    return (Atomics.load(this.control, Control.Stored) - taken) | 0;
  }

  /** Wipes and skips all that waits: its source has failed a test since. */
  private drop(): void {
    const stored = Atomics.load(this.control, Control.Stored);
    for (let at = Atomics.load(this.control, Control.Taken); at !== stored;) {
      const offset = at & (FED_QUEUE_BYTES - 1);
      const count = Math.min((stored - at) | 0, FED_QUEUE_BYTES - offset);
      this.bytes.fill(0, offset, offset + count);
      at = (at + count) | 0;
    }
    Atomics.store(this.control, Control.Taken, stored);
    move(this.control);
  }

  close(): void {
    this.bytes.fill(0);
  }
}
