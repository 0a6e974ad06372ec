// Lets go, in libuv's thread pool, of fds and mappings that the data plane has done with: either may take long.
import { PreparedCall } from '../shared-memory/ffi.js';
import { clearLinger } from '../shared-memory/unix-socket.js';
import { asFd } from '../shared-memory/fd.js';
import type { Disposable } from './data-plane-messages.js';

/** Calls under way; a process that exits does not wait for them. */
let pending = 0;

/** True while something is being let go: process.exit() would wait for it. */
export function isDisposing(): boolean {
  return pending > 0;
}

/** Closes or unmaps soon. Never waits and never fails. */
export function dispose(what: Disposable): void {
  const call = 'fd' in what ? closing(what.fd) : unmapping(what.address, what.length);
  pending++;
  void call.callOnPool().then(() => pending--);
}

function closing(fd: number): PreparedCall {
  // A TCP socket that a peer passed may be set to linger for years.
  clearLinger(asFd(fd));
  const call = new PreparedCall('close', 'int', ['int']);
  call.setInt(0, fd);
  return call;
}

function unmapping(address: number, length: number): PreparedCall {
  // SAFETY: the data plane dropped every view before it sent the address, and sends each once.
  const call = new PreparedCall('munmap', 'int', ['pointer', 'size']);
  call.setWide(0, address);
  call.setWide(1, length);
  return call;
}
