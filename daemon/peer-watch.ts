// The main thread's watch over the data plane's calls on what peers share (peer-calls.ts).
//
// While such calls are made it looks at the mark fifty times a second. A call that is seen inside is looked at more closely:
// a thread that sleeps there was made to wait by the VMM, and is interrupted; one that runs there for long has a VMM that
// makes the kernel busy. A thread that was merely preempted, stopped or frozen does neither: that is no one's fault. With no
// calls being made the watch sleeps, and the data plane's next call wakes it: an idle host is left alone.
import { readFileSync, readSync } from 'node:fs';
import { constants } from 'node:os';
import { signalThread, interruptOn } from '../shared-memory/process-control.js';
import { type Clock, MonotonicClock, ThreadCpuClock } from '../shared-memory/monotonic-clock.js';
import { Mark } from './peer-calls.js';

/** A call takes a microsecond. Ours. */
const LOOK_EVERY_MS = 20;
/** The next look at a call that was seen inside. Ours. */
const LOOK_CLOSER_MS = 2;
/**
 * CPU time that a device may make the data plane spend within calls of more than LOOK_CLOSER_MS, and what is forgiven of
 * it in a second. A hypervisor that takes the host's CPU away within a call must not cost a guest its connection. Ours.
 */
const SLOW_LIMIT_MS = 50;
const FORGIVEN_MS_PER_SECOND = 25;
/** Less CPU time is the timer's own error. Ours. */
const BUSY_MS = 0.5;
/** write, recvmsg, sendmsg, sendfile, epoll_ctl and preadv2. Source: the kernel's system call tables. */
const MARKED_CALLS: readonly number[] =
  process.arch === 'x64' ? [1, 47, 46, 40, 233, 327] : [64, 212, 211, 71, 21, 286];
/** Does nothing but interrupt. Nothing else in the daemon uses it. */
export const WAKING_SIGNAL = constants.signals.SIGUSR2;

/** The first word is the number of the call. */
const CALL_TEXT_BYTES = 256;

/** Watches for the life of the process. */
export class PeerWatch {
  private readonly mark: Int32Array;
  private readonly clock: Clock = new MonotonicClock();
  private readonly callText = Buffer.alloc(CALL_TEXT_BYTES);
  private threadClock: Clock | undefined;
  private readonly slow = new Map<number, { ms: number; atMs: number }>();
  private lastCount = 0;
  private lastCpuMs = 0;
  /** This look comes soon after one that saw a call. */
  private closer = false;
  /** The data plane was told to wake the watch, which looks once more before it sleeps. */
  private drowsy = false;

  constructor(mark: SharedArrayBuffer) {
    this.mark = new Int32Array(mark);
  }

  start(): void {
    interruptOn(WAKING_SIGNAL);
    Atomics.store(this.mark, Mark.Asleep, 1);
    this.sleep();
  }

  private lookIn(ms: number): void {
    setTimeout(() => this.look(), ms);
  }

  /** Ends with the next call of the data plane. */
  private sleep(): void {
    const waking = Atomics.waitAsync(this.mark, Mark.Asleep, 1);
    if (waking.async) void waking.value.then(() => this.lookIn(LOOK_EVERY_MS));
    else this.lookIn(LOOK_EVERY_MS);
  }

  private look(): void {
    const count = Atomics.load(this.mark, Mark.Count);
    const inside = (count & 1) !== 0;
    const moved = count !== this.lastCount;
    const holdsUp = inside && !moved && this.judge(count);
    this.lastCount = count;
    // A call that was seen twice and is merely kept from running needs no closer look.
    this.closer = inside && (holdsUp || !this.closer);
    if (inside) {
      this.drowsy = false;
      this.lastCpuMs = this.threadCpuMs();
      this.lookIn(this.closer ? LOOK_CLOSER_MS : LOOK_EVERY_MS);
    } else if (moved) {
      this.drowsy = false;
      this.lookIn(LOOK_EVERY_MS);
    } else if (!this.drowsy) {
      // A call that begins now may not see this yet, but the look after this one sees the call.
      this.drowsy = true;
      Atomics.store(this.mark, Mark.Asleep, 1);
      this.lookIn(LOOK_EVERY_MS);
    } else {
      this.drowsy = false;
      this.sleep();
    }
  }

  /** The data plane has been inside the same call since the last look: waiting, busy (both true), or kept from running. */
  private judge(count: number): boolean {
    const device = Atomics.load(this.mark, Mark.Device);
    const cpuMs = this.threadCpuMs() - this.lastCpuMs;
    const waits = this.threadWaits();
    if (Atomics.load(this.mark, Mark.Count) !== count) return false;
    if (waits) {
      Atomics.store(this.mark, Mark.Accused, device);
      signalThread(Atomics.load(this.mark, Mark.ThreadId), WAKING_SIGNAL);
    } else if (this.slowMs(device, cpuMs) > SLOW_LIMIT_MS) {
      this.slow.delete(device);
      Atomics.store(this.mark, Mark.Accused, device);
    }
    return waits || cpuMs > BUSY_MS;
  }

  /** Adds CPU time to what a device has spent within slow calls, less what is forgiven; gives the sum. */
  private slowMs(device: number, addedMs: number): number {
    this.clock.read();
    const atMs = this.clock.nowMs[0] ?? 0;
    const before = this.slow.get(device) ?? { ms: 0, atMs };
    const forgivenMs = ((atMs - before.atMs) * FORGIVEN_MS_PER_SECOND) / 1000;
    const ms = Math.max(0, before.ms - forgivenMs) + addedMs;
    this.slow.set(device, { ms, atMs });
    return ms;
  }

  private threadCpuMs(): number {
    this.threadClock ??= new ThreadCpuClock(Atomics.load(this.mark, Mark.ThreadId));
    this.threadClock.read();
    return this.threadClock.nowMs[0] ?? 0;
  }

  /**
   * Whether the data plane waits in one of the calls that are marked, as opposed to running, being ready to run, or waiting for
   * V8. Source: proc(5), stat and syscall.
   */
  private threadWaits(): boolean {
    const folder = `/proc/self/task/${Atomics.load(this.mark, Mark.ThreadId)}`;
    const stat = readFileSync(`${folder}/stat`, 'latin1');
    // The thread's name, in brackets, may itself contain anything.
    if (!stat.startsWith(' S', stat.lastIndexOf(')') + 1)) return false;
    const callFile = Atomics.load(this.mark, Mark.CallFile);
    // Where /proc is not there for us, what else a thread could wait in between two stores is V8: nothing is allocated there.
    if (callFile < 0) return true;
    const length = readSync(callFile, this.callText, 0, this.callText.length, 0);
    return MARKED_CALLS.includes(Number.parseInt(this.callText.toString('latin1', 0, length)));
  }
}
