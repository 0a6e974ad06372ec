// A guest is told of its bytes by write(2) to an eventfd that its VMM holds too. The VMM can fill that eventfd and make
// it blocking between any two of our instructions, and the write would then wait for ever, with every other device.
//
// So the data plane marks when it is inside such a write, and the main thread looks at the mark ten times a second
// while anyone is connected. A write that lasts is interrupted by a signal to the thread: it returns EINTR, and the
// device treats its front-end as hostile. The mark costs two stores a request; asking the kernel first would cost a
// system call and still be a race.
import { constants } from 'node:os';
import { signal } from '../shared-memory/eventfd.js';
import type { Fd } from '../shared-memory/fd.js';
import * as libc from '../shared-memory/libc.js';

/** Words of the shared mark: the count of beginnings and ends (odd: inside), and the data plane's thread id. */
const Mark = { Count: 0, ThreadId: 1 } as const;
/** A write to an eventfd takes half a microsecond. Ours. */
const LOOK_EVERY_MS = 100;
/** Nothing else in the daemon uses it. */
const WAKING_SIGNAL = constants.signals.SIGUSR2;

/** Makes the mark that both threads share. */
export function createSignalMark(): SharedArrayBuffer {
  return new SharedArrayBuffer(4 * Object.keys(Mark).length);
}

/** The data plane's end: signals eventfds, marked. */
export class MarkedSignal {
  private readonly mark: Int32Array;

  constructor(mark: SharedArrayBuffer) {
    this.mark = new Int32Array(mark);
    Atomics.store(this.mark, Mark.ThreadId, libc.gettid());
  }

  /** As signal(); EINTR negated means that the write did not return by itself. */
  signal(fd: Fd): number {
    // Plain stores: this thread is the only writer, and a thread that is stuck has none left in its store buffer.
    this.mark[Mark.Count] = ((this.mark[Mark.Count] ?? 0) + 1) | 0;
    const result = signal(fd);
    this.mark[Mark.Count] = ((this.mark[Mark.Count] ?? 0) + 1) | 0;
    return result;
  }
}

/** The main thread's end. */
export class SignalWatch {
  private readonly mark: Int32Array;
  private timer: NodeJS.Timeout | undefined;
  private lastCount = 0;

  constructor(mark: SharedArrayBuffer) {
    this.mark = new Int32Array(mark);
    libc.interruptOn(WAKING_SIGNAL);
  }

  /** Looks from now on, or no more: there is nothing to look at while nobody is connected. */
  run(wanted: boolean): void {
    clearInterval(this.timer);
    this.timer = wanted ? setInterval(() => this.look(), LOOK_EVERY_MS) : undefined;
  }

  private look(): void {
    const count = Atomics.load(this.mark, Mark.Count);
    const inside = (count & 1) !== 0;
    if (inside && count === this.lastCount)
      libc.signalThread(Atomics.load(this.mark, Mark.ThreadId), WAKING_SIGNAL);
    this.lastCount = count;
  }
}
