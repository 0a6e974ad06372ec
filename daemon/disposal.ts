// Lets go, in libuv's thread pool, of fds and mappings that the data plane has done with: either may take long.
import { asFd } from '../shared-memory/fd.js';
import { PreparedCall } from '../shared-memory/ffi.js';
import { clearLinger } from '../shared-memory/unix-socket.js';
import type { Disposable } from './data-plane-messages.js';

/** Calls that are not under way; each can be under way once at a time. */
const idleCloses: PreparedCall[] = [];
const idleUnmaps: PreparedCall[] = [];
let underWay = 0;

/** True while something is being let go: process.exit() would wait for it. */
export function isDisposing(): boolean {
  return underWay > 0;
}

/** Closes or unmaps soon. Never waits and never fails. */
export function dispose(what: Disposable): void {
  if ('fd' in what) {
    // A TCP socket that a peer passed may be set to linger for years.
    clearLinger(asFd(what.fd));
    const call = idleCloses.pop() ?? new PreparedCall('close', 'int', ['int']);
    call.setInt(0, what.fd);
    start(call, idleCloses);
  } else {
    // SAFETY: the data plane dropped every view before it sent the address, and sends each once.
    const call = idleUnmaps.pop() ?? new PreparedCall('munmap', 'int', ['pointer', 'size']);
    call.setWide(0, what.address);
    call.setWide(1, what.length);
    start(call, idleUnmaps);
  }
}

function start(call: PreparedCall, idle: PreparedCall[]): void {
  underWay++;
  void call.callOnPool().then(() => {
    underWay--;
    idle.push(call);
  });
}
