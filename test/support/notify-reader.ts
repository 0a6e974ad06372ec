// A thread that reads a notification socket as quickly as systemd does, whatever else the test is doing, and with as long a queue:
// 512 messages, which takes a network namespace of the thread's own. Without root it is the host's, often 10, and what a service says
// in a burst is late.
import { writeFileSync } from 'node:fs';
import { type MessagePort, workerData } from 'node:worker_threads';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import { NativeMemory, PreparedCall } from '../../shared-memory/ffi.js';
import { poll, POLLIN } from '../../shared-memory/libc.js';
import { bindTo, MessageBuffer, openDatagramSocket } from '../../shared-memory/unix-socket.js';

/** What the thread is given. */
export interface ReaderSetup {
  /** Where it makes its socket. */
  readonly address: string;
  /** Takes every {@link Notification}. */
  readonly port: MessagePort;
  /** One word: not 0 ends the thread. */
  readonly ended: Int32Array;
}

/** A message as it came; the fds are the process's own. */
export interface Notification {
  readonly text: string;
  readonly fds: readonly Fd[];
}

const MAX_MESSAGE_BYTES = 8192;
const LOOK_MS = 50;

const CLONE_NEWNET = 0x40000000;
const QUEUE_LENGTH = '/proc/sys/net/unix/max_dgram_qlen';
/** What systemd sets it to. */
const SYSTEMS_QUEUE_LENGTH = '512\n';

const { address, port, ended } = workerData as ReaderSetup;
const unshare = new PreparedCall('unshare', 'int', ['int']);
unshare.setInt(0, CLONE_NEWNET);
if (unshare.call() === 0) writeFileSync(QUEUE_LENGTH, SYSTEMS_QUEUE_LENGTH);
const socket = asFd(openDatagramSocket());
if (bindTo(socket, address) < 0) throw new Error(`binding ${address}`);
port.postMessage({ text: 'BOUND=1', fds: [] } satisfies Notification);

const messages = new MessageBuffer();
const buffer = new NativeMemory(MAX_MESSAGE_BYTES);
while (Atomics.load(ended, 0) === 0) {
  poll(socket, POLLIN, LOOK_MS);
  for (;;) {
    const fds: Fd[] = [];
    const got = messages.receive(socket, buffer, { offset: 0, length: MAX_MESSAGE_BYTES }, fds);
    if (got < 0) break;
    port.postMessage({ text: buffer.bytes.toString('utf8', 0, got), fds } satisfies Notification);
  }
}
closeFd(socket);
port.close();
