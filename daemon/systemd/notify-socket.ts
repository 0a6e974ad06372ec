// Words to the service manager: datagrams to the socket of $NOTIFY_SOCKET, with fds that it is to keep. Each user has a
// socket of its own.
// Source: sd_notify(3); the protocol itself, since it is smaller than a library for it.
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import { poll, POLLOUT } from '../../shared-memory/libc.js';
import { connectTo, MessageBuffer, openDatagramSocket } from '../../shared-memory/unix-socket.js';

/** A message has a few names and numbers. Ours. */
const MAX_MESSAGE_BYTES = 4096;

/** A connected socket. */
export class NotifySocket {
  private readonly fd: Fd;
  private readonly messages = new MessageBuffer();
  private readonly text = new NativeMemory(MAX_MESSAGE_BYTES);

  private constructor(fd: Fd) {
    this.fd = fd;
  }

  /** The socket at `address`, a path or `@name`; undefined where there is none: nobody asks for our words. */
  static open(address: string | undefined): NotifySocket | undefined {
    if (address === undefined || !/^[/@]./.test(address)) return undefined;
    const fd = openDatagramSocket();
    if (fd < 0) return undefined;
    if (connectTo(asFd(fd), address) === 0) return new NotifySocket(asFd(fd));
    closeFd(asFd(fd));
    return undefined;
  }

  /** Sends assignments, one a line, with `fds` (borrowed); bytes sent, or a negated error number: EAGAIN when it is full. */
  send(text: string, fds: readonly Fd[] = []): number {
    const length = this.text.bytes.write(text, 0, MAX_MESSAGE_BYTES, 'utf8');
    return this.messages.send(this.fd, this.text, { offset: 0, length }, fds);
  }

  /** Waits, `timeoutMs` at most, until it can take a message more. */
  waitForRoom(timeoutMs: number): void {
    poll(this.fd, POLLOUT, timeoutMs);
  }

  close(): void {
    closeFd(this.fd);
  }
}
