// One-shot timers of the data plane. Nothing is armed for an idle device, so a plain list is enough.
import type { Clock } from '../shared-memory/monotonic-clock.js';

/** What happens when a timer is due. */
export interface Timer {
  /** Time of the clock, in ms, at which it is due; Infinity while it is not armed. Set by {@link Timers} only. */
  dueMs: number;
  onDue(): void;
  /** A bug of ours threw in onDue(): end what this timer serves, and nothing else. */
  onCrash(error: unknown): void;
}

/** The armed timers of one event loop. */
export class Timers {
  private readonly clock: Clock;
  private readonly armed: Timer[] = [];

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Arms, or arms anew, to be due `delayMs` from now. */
  armIn(timer: Timer, delayMs: number): void {
    this.armAt(timer, this.now() + delayMs);
  }

  /** Arms, or arms anew, to be due at `dueMs` of the clock. */
  armAt(timer: Timer, dueMs: number): void {
    if (timer.dueMs === Infinity) this.armed.push(timer);
    timer.dueMs = dueMs;
  }

  disarm(timer: Timer): void {
    if (timer.dueMs === Infinity) return;
    timer.dueMs = Infinity;
    this.removeAt(this.armed.indexOf(timer));
  }

  private now(): number {
    this.clock.read();
    return this.clock.nowMs[0] ?? 0;
  }

  private removeAt(i: number): void {
    const last = this.armed.pop();
    if (last !== undefined && i < this.armed.length) this.armed[i] = last;
  }

  /** Milliseconds until the next is due, rounded up, for epoll_wait(2); -1 when none is armed. */
  timeoutMs(): number {
    if (this.armed.length === 0) return -1;
    let next = Infinity;
    for (const timer of this.armed) next = Math.min(next, timer.dueMs);
    return Math.max(0, Math.ceil(next - this.now()));
  }

  /** Runs what is due. */
  run(): void {
    if (this.armed.length === 0) return;
    const now = this.now();
    for (let i = this.armed.length - 1; i >= 0; i--) {
      const timer = this.armed[i];
      if (timer === undefined || timer.dueMs > now) continue;
      timer.dueMs = Infinity;
      this.removeAt(i);
      try {
        timer.onDue();
      } catch (error) {
        timer.onCrash(error);
      }
    }
  }
}
