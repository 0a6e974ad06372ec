// Rings that hold a request because no source has bytes, until one does.
import type { Timer, Timers } from '../timers.js';

/** Sources without a wake-up of their own are asked again this often while anyone waits. Ours. */
const RETRY_MS = 100;

/** A ring that waits; resume() queues it for another pass. */
export interface Starved {
  resume(): void;
}

/** The waiting rings of one thread. */
export class Starvation implements Timer {
  dueMs = Infinity;
  private readonly timers: Timers;
  private waiting: Starved[] = [];

  constructor(timers: Timers) {
    this.timers = timers;
  }

  /** Holds `ring` until a source has bytes. */
  wait(ring: Starved): void {
    if (!this.waiting.includes(ring)) this.waiting.push(ring);
    if (this.dueMs === Infinity) this.timers.armIn(this, RETRY_MS);
  }

  /** Forgets a ring that stops. */
  forget(ring: Starved): void {
    this.waiting = this.waiting.filter((other) => other !== ring);
  }

  /** Bytes may be there again: every waiting ring has another look. */
  resumeAll(): void {
    if (this.waiting.length === 0) return;
    const resumed = this.waiting;
    this.waiting = [];
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
