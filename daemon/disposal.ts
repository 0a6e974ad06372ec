// Lets go, outside of the data plane, of fds and mappings that it has done with.
//
// What only takes CPU time (memory, files of local disks, eventfds, sockets that are empty) goes through libuv's thread pool,
// which node needs too, so a few at a time. What may wait for someone gets a native thread, one at a time for each device:
// a wait that lasts is interrupted, and one that cannot be holds up nothing but its own device.
import { asFd, type Fd, inspectFd } from '../shared-memory/fd.js';
import { PreparedCall } from '../shared-memory/ffi.js';
import { fileWithSignal, NativeThread } from '../shared-memory/native-thread.js';
import { clearLinger, endsEmpty } from '../shared-memory/unix-socket.js';
import type { DisposeMessage, Disposable } from './data-plane-messages.js';
import { WAKING_SIGNAL } from './peer-watch.js';

/** Of the four threads of libuv's pool. Ours. */
const MOST_ON_POOL = 2;
/** How often a native thread is looked at, growing from the first to the last. Ours. */
const FIRST_LOOK_MS = 1;
const LAST_LOOK_MS = 1000;
/** A wait is interrupted from here on. Ours. */
const INTERRUPT_AFTER_MS = 100;

type FdDisposable = Extract<Disposable, { readonly fd: number }>;
type Span = Extract<Disposable, { readonly address: number }>;
type FdDisposal = DisposeMessage & { readonly what: FdDisposable };

/** Calls that are not under way; each can be under way once at a time. */
const idleCloses: PreparedCall[] = [];
const idleUnmaps: PreparedCall[] = [];
/** What waits for the pool, and how much of it is under way. */
const forPool: DisposeMessage[] = [];
let onPool = 0;
/** What waits for a thread of its own, by device; the first of each is under way. */
const lanes = new Map<number, FdDisposal[]>();

/** True while something is being let go: process.exit() would wait for it. */
export function isDisposing(): boolean {
  return onPool > 0 || lanes.size > 0;
}

/** Closes or unmaps soon. Never waits and never fails. */
export function dispose(message: DisposeMessage): void {
  const { what, device } = message;
  if (!('fd' in what) || isQuick(what)) {
    forPool.push(message);
    fillPool();
    return;
  }
  const lane = lanes.get(device);
  lane?.push({ ...message, what });
  if (lane !== undefined) return;
  lanes.set(device, [{ ...message, what }]);
  runLane(device);
}

let alone = 0;

/** Closes an fd soon, for itself: what makes it wait holds up nothing else. For the main thread's own use. */
export function disposeAlone(fd: Fd): void {
  const waiting = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  dispose({ kind: 'dispose', device: --alone, waiting, what: { fd, how: 'close' } });
}

/** True when closing takes CPU time at most: nobody can make it wait. */
function isQuick({ fd, how }: FdDisposable): boolean {
  if (how === 'signal') return false;
  if (how === 'end' && endsEmpty(asFd(fd))) return true;
  const { kind, local } = inspectFd(asFd(fd));
  return kind === 'eventfd' || (kind === 'regular file' && local);
}

function done({ waiting }: DisposeMessage): void {
  Atomics.sub(waiting, 0, 1);
}

function fillPool(): void {
  while (onPool < MOST_ON_POOL) {
    const message = forPool.shift();
    if (message === undefined) return;
    const { what } = message;
    const idle = 'fd' in what ? idleCloses : idleUnmaps;
    const call = 'fd' in what ? preparedClose(what) : preparedUnmap(what);
    onPool++;
    void call.callOnPool().then(() => {
      onPool--;
      idle.push(call);
      done(message);
      fillPool();
    });
  }
}

function preparedClose({ fd }: FdDisposable): PreparedCall {
  const call = idleCloses.pop() ?? new PreparedCall('close', 'int', ['int']);
  call.setInt(0, fd);
  return call;
}

function preparedUnmap({ address, length }: Span): PreparedCall {
  // SAFETY: the data plane dropped every view before it sent the address, and sends each once.
  const call = idleUnmaps.pop() ?? new PreparedCall('munmap', 'int', ['pointer', 'size']);
  call.setWide(0, address);
  call.setWide(1, length);
  return call;
}

/** What starts the thread that lets go of `what`; it gives undefined, and may be called again, when there is no thread now. */
function starter({ fd, how }: FdDisposable): () => NativeThread | undefined {
  // A TCP socket that a peer passed may be set to linger for years.
  clearLinger(asFd(fd));
  const file = how === 'signal' ? fileWithSignal(fd) : undefined;
  return () => (file === undefined ? NativeThread.start('close', fd) : NativeThread.start('fclose', file));
}

/** Lets go of what waits first in a device's lane, and so on until it is empty. */
function runLane(device: number): void {
  const lane = lanes.get(device);
  const first = lane?.[0];
  if (lane === undefined || first === undefined) {
    lanes.delete(device);
    return;
  }
  const start = starter(first.what);
  let thread = start();
  const startedMs = performance.now();
  let lookMs = FIRST_LOOK_MS;
  const look = (): void => {
    thread ??= start();
    if (thread?.hasEnded() === true) {
      lane.shift();
      done(first);
      runLane(device);
      return;
    }
    // Nearly all that can be waited for ends with a signal: sockets that linger, terminals, a pipe that is full.
    if (performance.now() - startedMs > INTERRUPT_AFTER_MS) thread?.interrupt(WAKING_SIGNAL);
    setTimeout(look, lookMs);
    lookMs = Math.min(2 * lookMs, LAST_LOOK_MS);
  };
  setImmediate(look);
}
