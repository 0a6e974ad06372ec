// File descriptors of the kinds that a front-end may pass, wanted or not. Whoever opens one closes it.
import { constants, openSync } from 'node:fs';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import { NativeMemory, PreparedCall } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';

const CLOCK_MONOTONIC = 1;
const AF_INET = 2;
/** struct sockaddr_in: family, port and address, then 8 bytes of nothing. Source: ip(7). */
const SOCKADDR_IN_BYTES = 16;
const SOCKADDR_IN_ADDRESS = 4;
/** A file descriptor that stands for a place in the tree and opens nothing. Source: open(2). */
const O_PATH = 0o10000000;

const pair = new NativeMemory(8);
const word = new NativeMemory(8);
const socketpairCall = new PreparedCall('socketpair', 'int', ['int', 'int', 'int', 'pointer']);
const pipeCall = new PreparedCall('pipe2', 'int', ['pointer', 'int']);
const getsocknameCall = new PreparedCall('getsockname', 'int', ['int', 'pointer', 'pointer']);
const setsockoptCall = new PreparedCall('setsockopt', 'int', ['int', 'int', 'int', 'pointer', 'uint']);
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

/** A symbolic link itself, opened with O_PATH: neither a file nor anything that can be read or written. */
export function openSymlink(path: string): Fd {
  return asFd(openSync(path, O_PATH | constants.O_NOFOLLOW));
}

/**
 * Two connected TCP sockets on loopback. Closing the first takes `seconds`, as its SO_LINGER says, while the second does not read:
 * it has as much unsent data as the kernel takes.
 */
export function openLingeringSocket(seconds: number): readonly [Fd, Fd] {
  const listener = checked(libc.socket(AF_INET, libc.SOCK_STREAM | libc.SOCK_CLOEXEC));
  const address = new NativeMemory(SOCKADDR_IN_BYTES);
  address.bytes.writeUInt16LE(AF_INET);
  address.bytes.set([127, 0, 0, 1], SOCKADDR_IN_ADDRESS);
  checked(libc.bind(listener, address.address, SOCKADDR_IN_BYTES));
  checked(libc.listen(listener, 1));
  word.setWide(0, SOCKADDR_IN_BYTES);
  getsocknameCall.setInt(0, listener);
  getsocknameCall.setWide(1, address.address);
  getsocknameCall.setWide(2, word.address);
  checked(getsocknameCall.call());
  const socket = checked(libc.socket(AF_INET, libc.SOCK_STREAM | libc.SOCK_CLOEXEC));
  checked(libc.connect(socket, address.address, SOCKADDR_IN_BYTES));
  const peer = checked(libc.accept(listener, libc.SOCK_CLOEXEC));
  closeFd(listener);

  const junk = new NativeMemory(1 << 16);
  libc.fcntl(socket, libc.F_SETFL, libc.O_NONBLOCK);
  while (libc.write(socket, junk.address, junk.bytes.length) > 0);
  pair.words.set([1, seconds]);
  setsockoptCall.setInt(0, socket);
  setsockoptCall.setInt(1, libc.SOL_SOCKET);
  setsockoptCall.setInt(2, libc.SO_LINGER);
  setsockoptCall.setWide(3, pair.address);
  setsockoptCall.setInt(4, 8);
  checked(setsockoptCall.call());
  return [socket, peer];
}

function checked(returned: number): Fd {
  if (returned < 0) throw new Error(`system call: ${returned}`);
  return asFd(returned);
}

function twoFds(failed: number): readonly [Fd, Fd] {
  if (failed !== 0) throw new Error(`no pair of descriptors: ${failed}`);
  return [asFd(pair.words[0] ?? -1), asFd(pair.words[1] ?? -1)];
}
