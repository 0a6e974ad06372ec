// The data plane's calls on what a peer holds too: eventfds that are signalled or watched, the other end of a socket.
//
// O_NONBLOCK belongs to the open file, so a VMM can make such a call wait at any moment; or it makes the kernel busy within
// the call, by watching its end a million times. Neither can be prevented. So the thread marks when it is inside, and for
// which device; the main thread watches the mark (peer-watch.ts), ends a wait and accuses the device. The mark costs four
// plain stores and two loads a request; asking the kernel or the clock first would cost more, and asking is a race.
import { Errno } from '../shared-memory/errno.js';
import { signal } from '../shared-memory/eventfd.js';
import type { Fd } from '../shared-memory/fd.js';
import { gettid, openCurrentCall } from '../shared-memory/process-control.js';
import type { CallMark } from '../shared-memory/unix-socket.js';
import { Fault } from '../protocol/fault.js';

/**
 * Words of the mark. `Count` counts beginnings and ends (odd: inside), `Device` is whose call it is, `ThreadId` the data
 * plane's, and `CallFile` the fd of what /proc tells of its current system call, or -1. `Asleep` is 1 while the watch has to be woken at the next call. `Accused` is a device, or 0.
 */
export const Mark = { Count: 0, Device: 1, ThreadId: 2, Asleep: 3, Accused: 4, CallFile: 5 } as const;

/** Makes the mark that both threads share. */
export function createMark(): SharedArrayBuffer {
  return new SharedArrayBuffer(4 * Object.keys(Mark).length);
}

/** The data plane's calls on what peers hold too; devices are numbers from 1 on. One object for all, so that it stays cached. */
export class PeerCalls implements CallMark {
  private readonly mark: Int32Array;

  constructor(mark: SharedArrayBuffer) {
    this.mark = new Int32Array(mark);
    Atomics.store(this.mark, Mark.CallFile, openCurrentCall());
    Atomics.store(this.mark, Mark.ThreadId, gettid());
  }

  /** As signal() of shared-memory/eventfd.ts; EINTR negated when this device's calls have held up the thread. */
  signal(fd: Fd, device: number): number {
    this.enter(device);
    const result = signal(fd);
    this.leave();
    return this.isAccused(device) ? -Errno.EINTR : result;
  }

  /** True when this device's calls have held up the thread, and the front-end must be closed. */
  isAccused(device: number): boolean {
    return this.mark[Mark.Accused] === device;
  }

  /** The device has a new front-end, which has done nothing yet. */
  acquit(device: number): void {
    if (this.isAccused(device)) Atomics.store(this.mark, Mark.Accused, 0);
  }

  /** Before any other such call. Nothing is allocated between this and leave(), or a collection of garbage counts as the peer's. */
  enter(device: number): void {
    // Plain stores: this thread is the only writer, and a thread that is stuck has none left in its store buffer.
    this.mark[Mark.Device] = device;
    this.mark[Mark.Count] = ((this.mark[Mark.Count] ?? 0) + 1) | 0;
    if (this.mark[Mark.Asleep] !== 0) this.wakeWatch();
  }

  leave(): void {
    this.mark[Mark.Count] = ((this.mark[Mark.Count] ?? 0) + 1) | 0;
  }

  private wakeWatch(): void {
    Atomics.store(this.mark, Mark.Asleep, 0);
    Atomics.notify(this.mark, Mark.Asleep);
  }
}

/** The front-end has made a fd block, or the kernel busy at each write to it; either takes intent. */
export function signalBlocked(): Fault {
  return new Fault(
    'connection',
    'signal_blocked',
    'expected call and err fds that take a signal at once, got one that held up the daemon',
  );
}

/** The same with the connection itself, or with the kick fd. */
export function connectionBlocked(): Fault {
  return new Fault(
    'connection',
    'connection_blocked',
    'expected a connection whose calls take microseconds, got one that held up the daemon',
  );
}
