// The rings of one device that wait for its limit, and whose turn it is: each has what has come back when it is first in the
// row, and goes to the end of it. With a single ring it is no more than a timer.
import type { Limiter } from './limiter.js';
import type { Timer, Timers } from './timers.js';

/** A ring; resume() brings it to the loop for a pass. */
export interface LimitWaiter {
  resume(): void;
}

/** The row of one device. */
export class LimitTurns implements Timer {
  dueMs = Infinity;
  private readonly timers: Timers;
  private readonly limiter: Limiter;
  private readonly waiting: LimitWaiter[] = [];
  /** The ring whose pass comes next. */
  private turn: LimitWaiter | undefined;

  constructor(timers: Timers, limiter: Limiter) {
    this.timers = timers;
    this.limiter = limiter;
  }

  /** True when nobody else has waited for longer. */
  mayTake(ring: LimitWaiter): boolean {
    return this.turn === undefined ? this.waiting.length === 0 : this.turn === ring;
  }

  /** Holds `ring`, whose pass has just ended for want of quota, behind those that wait already. */
  wait(ring: LimitWaiter): void {
    if (!this.waiting.includes(ring)) this.waiting.push(ring);
    this.passed(ring);
    this.arm();
  }

  /** A pass of `ring` has ended: what it has left is for the next one. */
  passed(ring: LimitWaiter): void {
    if (this.turn !== ring) return;
    this.turn = undefined;
    this.arm();
  }

  /** The ring waits no more. */
  leave(ring: LimitWaiter): void {
    const at = this.waiting.indexOf(ring);
    if (at >= 0) this.waiting.splice(at, 1);
    if (this.waiting.length === 0) this.timers.disarm(this);
  }

  private arm(): void {
    if (this.waiting.length === 0 || this.turn !== undefined) return;
    this.timers.armAt(this, this.limiter.releaseMs(1));
  }

  onDue(): void {
    const first = this.waiting.shift();
    this.turn = first;
    first?.resume();
  }

  onCrash(error: unknown): void {
    throw error;
  }
}
