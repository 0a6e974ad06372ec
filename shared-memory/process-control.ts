// Calls about the process itself and its threads: signals, core files, names, and an end that nothing can hold up. None of them
// is on the data path. Constants are those of Linux's generic ABI.
import { constants, openSync } from 'node:fs';
import { NativeMemory, PreparedCall, symbolAddress } from './ffi.js';

const SIG_IGN = 1;

/** Makes the process ignore a signal in the kernel, without a handler. */
export function ignoreSignal(number: number): void {
  const call = new PreparedCall('signal', 'pointer', ['int', 'pointer']);
  call.setInt(0, number);
  call.setWide(1, SIG_IGN);
  call.call();
}

/** The calling thread's id. Source: gettid(2). */
export function gettid(): number {
  return new PreparedCall('gettid', 'int', []).call();
}

/** Sends a signal to one thread of this process. Source: tgkill(2). */
export function signalThread(tid: number, number: number): void {
  const call = new PreparedCall('tgkill', 'int', ['int', 'int', 'int']);
  call.setInt(0, process.pid);
  call.setInt(1, tid);
  call.setInt(2, number);
  call.call();
}

/**
 * Makes a signal do nothing but interrupt a system call that waits, which then returns EINTR.
 * SAFETY: the handler is libc's abs(3), which takes an int and touches nothing.
 */
export function interruptOn(number: number): void {
  const siginterrupt = new PreparedCall('siginterrupt', 'int', ['int', 'int']);
  siginterrupt.setInt(0, number);
  siginterrupt.setInt(1, 1);
  siginterrupt.call();
  const handle = new PreparedCall('signal', 'pointer', ['int', 'pointer']);
  handle.setInt(0, number);
  handle.setWide(1, symbolAddress('abs'));
  handle.call();
}

/** _exit(2): ends every thread at once, also those blocked in a system call that process.exit() would wait for. */
export function exitNow(status: number): void {
  const call = new PreparedCall('_exit', 'int', ['int']);
  call.setInt(0, status);
  call.call();
}

const PR_SET_DUMPABLE = 4;
const RLIMIT_CORE = 4;

/**
 * The calling thread's file of its current system call, for another thread of this process to read at any time; -1 where there is
 * none. It belongs to root as long as the process is not dumpable, but only opening asks for that: for the moment of opening it,
 * the process is. Source: proc(5), /proc/PID/syscall; prctl(2), PR_SET_DUMPABLE.
 */
export function openCurrentCall(): number {
  const path = `/proc/self/task/${gettid()}/syscall`;
  const opened = openForReading(path);
  if (opened >= 0) return opened;
  setDumpable(1);
  const again = openForReading(path);
  setDumpable(0);
  return again;
}

function openForReading(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY);
  } catch {
    return -1;
  }
}

function setDumpable(dumpable: 0 | 1): void {
  const prctl = new PreparedCall('prctl', 'int', ['int', 'long']);
  prctl.setInt(0, PR_SET_DUMPABLE);
  prctl.setWide(1, dumpable);
  prctl.call();
}

/** Makes the process leave no core file and lets no other of its user attach to it. Source: prctl(2), setrlimit(2). */
export function keepOutOfCoreFiles(): void {
  setDumpable(0);
  const setrlimit = new PreparedCall('setrlimit', 'int', ['int', 'pointer']);
  setrlimit.setInt(0, RLIMIT_CORE);
  // struct rlimit of two zeros: no core file, now or later.
  setrlimit.setMemory(1, new NativeMemory(16));
  setrlimit.call();
}

const PR_SET_NAME = 15;
const THREAD_NAME_BYTES = 16;

/** Names the calling thread for `top -H` and /proc; what is longer than 15 bytes is cut. Source: prctl(2). */
export function setThreadName(name: string): void {
  const text = new NativeMemory(THREAD_NAME_BYTES);
  text.bytes.write(name, 0, THREAD_NAME_BYTES - 1, 'latin1');
  const prctl = new PreparedCall('prctl', 'int', ['int', 'pointer']);
  prctl.setInt(0, PR_SET_NAME);
  prctl.setMemory(1, text);
  prctl.call();
}
