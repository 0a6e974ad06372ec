// A clock that only a test moves.
import type { Clock } from '../../shared-memory/monotonic-clock.js';

/** Stands still until {@link set} or {@link advance}. */
export class TestClock implements Clock {
  readonly nowMs = new Float64Array(1);
  private at: number;

  constructor(startMs = 0) {
    this.at = startMs;
    this.read();
  }

  read(): void {
    this.nowMs[0] = this.at;
  }

  get now(): number {
    return this.at;
  }

  set(ms: number): void {
    this.at = ms;
  }

  advance(ms: number): void {
    this.at += ms;
  }
}
