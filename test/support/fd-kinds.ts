// File descriptors of the kinds that a front-end may pass, wanted or not. Whoever opens one closes it.
import { asFd, type Fd } from '../../shared-memory/fd.js';
import { NativeMemory, PreparedCall } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';

const CLOCK_MONOTONIC = 1;

const pair = new NativeMemory(8);
const word = new NativeMemory(8);
const socketpairCall = new PreparedCall('socketpair', 'int', ['int', 'int', 'int', 'pointer']);
const pipeCall = new PreparedCall('pipe2', 'int', ['pointer', 'int']);
const timerfdCall = new PreparedCall('timerfd_create', 'int', ['int', 'int']);

/** Two connected Unix stream sockets. */
export function openSocketPair(): readonly [Fd, Fd] {
  socketpairCall.setInt(0, libc.AF_UNIX);
  socketpairCall.setInt(1, libc.SOCK_STREAM | libc.SOCK_CLOEXEC);
  socketpairCall.setInt(2, 0);
  socketpairCall.setWide(3, pair.address);
  return twoFds(socketpairCall.call());
}

/** A pipe's read end and write end, both blocking. */
export function openPipe(): readonly [Fd, Fd] {
  pipeCall.setWide(0, pair.address);
  pipeCall.setInt(1, 0);
  return twoFds(pipeCall.call());
}

export function openTimerfd(): Fd {
  timerfdCall.setInt(0, CLOCK_MONOTONIC);
  timerfdCall.setInt(1, 0);
  return asFd(timerfdCall.call());
}

/** An eventfd as it comes without flags: blocking; with `semaphore` each read takes 1. */
export function openBlockingEventfd(options: { readonly semaphore: boolean }): Fd {
  return asFd(libc.eventfd(0, options.semaphore ? libc.EFD_SEMAPHORE : 0));
}

/** Adds `value`, below 2^53, to an eventfd's counter; 8 or a negated error number. */
export function addToEventfd(fd: Fd, value: number): number {
  word.setWide(0, value);
  return libc.write(fd, word.address, 8);
}

/** Bytes that can be read from `fd` within `timeoutMs`, at most 8; 0 for none. */
export function readSome(fd: Fd, timeoutMs: number): number {
  if (libc.poll(fd, libc.POLLIN, timeoutMs) <= 0) return 0;
  return libc.read(fd, word.address, 8);
}

function twoFds(failed: number): readonly [Fd, Fd] {
  if (failed !== 0) throw new Error(`no pair of descriptors: ${failed}`);
  return [asFd(pair.words[0] ?? -1), asFd(pair.words[1] ?? -1)];
}
