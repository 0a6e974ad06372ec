// The data plane's clock: CLOCK_MONOTONIC, read into a fixed place, because node's own clocks return a new object or
// number at each look and the data path allocates nothing; and the CPU time of a thread. Source: clock_gettime(2).
import { NativeMemory, PreparedCall } from './ffi.js';

/** A clock that is read when told to. Never goes back, and does not know the time of day. */
export interface Clock {
  /** One element: ms since some fixed moment, as of the last read(). */
  readonly nowMs: Float64Array;
  read(): void;
}

const CLOCK_MONOTONIC = 1;

/** A clock of the kernel, by its id. */
class KernelClock implements Clock {
  readonly nowMs = new Float64Array(1);
  /** struct timespec: 64-bit seconds, 64-bit nanoseconds. */
  private readonly timespec = new NativeMemory(16);
  private readonly gettime = new PreparedCall('clock_gettime', 'int', ['int', 'pointer']);

  constructor(clockId: number) {
    this.gettime.setInt(0, clockId);
    this.gettime.setWide(1, this.timespec.address);
    this.read();
  }

  read(): void {
    // SAFETY: the timespec lives as long as this object. Seconds since boot fit 31 bits for 68 years.
    this.gettime.call();
    this.nowMs[0] = (this.timespec.words[0] ?? 0) * 1e3 + (this.timespec.words[2] ?? 0) / 1e6;
  }
}

/** The kernel's monotonic clock. */
export class MonotonicClock extends KernelClock {
  constructor() {
    super(CLOCK_MONOTONIC);
  }
}

/** Time that a thread of this process has spent on a CPU. Source: linux/posix-timers.h, CPUCLOCK_SCHED of one thread. */
export class ThreadCpuClock extends KernelClock {
  constructor(tid: number) {
    super((~tid << 3) | 6);
  }
}
