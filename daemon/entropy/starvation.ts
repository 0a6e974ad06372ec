// Rings that hold a request because no source has bytes, until one does.
import type { Timer, Timers } from '../timers.js';

/** Sources without a wake-up of their own are asked again this often while anyone waits. Ours. */
const RETRY_MS = 100;

/** A ring that waits; resume() queues it for another pass. */
export interface Starved {
  resume(): void;
}

/** The waiting rings of one thread, in the order in which they are to be asked when bytes come. */
export class Starvation implements Timer {
  dueMs = Infinity;
  private readonly timers: Timers;
  private waiting: Starved[] = [];
  /** So many of them, the first ones, were given nothing when there was something last. */
  private unserved = 0;

  constructor(timers: Timers) {
    this.timers = timers;
  }

  /**
   * Holds `ring` until a source has bytes. One that was served some just now has its turn after all that were not, so
   * that a slow source is shared and not taken by whoever is asked first. One whose request was begun comes first: it
   * waits for the rest of it, and not for long.
   */
  wait(ring: Starved, claim: 'begun' | 'unserved' | 'served'): void {
    if (this.waiting.includes(ring)) return;
    if (claim === 'served') this.waiting.push(ring);
    else this.waiting.splice(claim === 'begun' ? 0 : this.unserved, 0, ring);
    if (claim !== 'served') this.unserved++;
    if (this.dueMs === Infinity) this.timers.armIn(this, RETRY_MS);
  }

  /** Forgets a ring that stops. */
  forget(ring: Starved): void {
    const at = this.waiting.indexOf(ring);
    if (at < 0) return;
    this.waiting.splice(at, 1);
    if (at < this.unserved) this.unserved--;
  }

  /** Bytes may be there again: every waiting ring has another look. */
  resumeAll(): void {
    if (this.waiting.length === 0) return;
    const resumed = this.waiting;
    this.waiting = [];
    this.unserved = 0;
    this.timers.disarm(this);
    for (const ring of resumed) ring.resume();
  }

  onDue(): void {
    this.resumeAll();
  }

  onCrash(error: unknown): void {
    throw error;
  }
}
