// Unix stream sockets for vhost-user: set-up, and messages with file descriptors (SCM_RIGHTS) both ways.
// Data path: the first station of every message. Source: unix(7), cmsg(3).
import { asFd, type Fd } from './fd.js';
import { NativeMemory } from './ffi.js';
import * as libc from './libc.js';

/** sun_path holds 108 bytes with its terminating NUL. Source: unix(7). */
export const MAX_SOCKET_PATH_BYTES = 107;
const SUN_PATH_OFFSET = 2;

const socketAddress = new NativeMemory(SUN_PATH_OFFSET + MAX_SOCKET_PATH_BYTES + 1);

/** Fills the address buffer for `path` (at most 107 bytes; the caller has checked), or `@name`, an abstract one; gives its length. */
function storeAddress(path: string): number {
  socketAddress.bytes.fill(0);
  socketAddress.words[0] = libc.AF_UNIX;
  const length = SUN_PATH_OFFSET + socketAddress.bytes.write(path, SUN_PATH_OFFSET);
  if (!path.startsWith('@')) return length + 1;
  socketAddress.bytes[SUN_PATH_OFFSET] = 0;
  return length;
}

/** The path that a socket is bound to; undefined: it has none. Source: getsockname(2). */
export function boundPath(fd: Fd): string | undefined {
  const length = libc.getsockname(fd, socketAddress);
  if (length <= SUN_PATH_OFFSET) return undefined;
  const bytes = socketAddress.bytes.subarray(SUN_PATH_OFFSET, Math.min(length, socketAddress.bytes.length));
  const end = bytes.indexOf(0);
  return end === 0 ? undefined : bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}

/** A new datagram socket, close-on-exec and non-blocking; a negated error number on failure. */
export function openDatagramSocket(): number {
  return libc.socket(libc.AF_UNIX, libc.SOCK_DGRAM | libc.SOCK_CLOEXEC | libc.SOCK_NONBLOCK);
}

/** A new stream socket, close-on-exec; a negated error number on failure. */
export function openSocket(options: { readonly nonBlocking: boolean }): number {
  const flags = libc.SOCK_CLOEXEC | (options.nonBlocking ? libc.SOCK_NONBLOCK : 0);
  return libc.socket(libc.AF_UNIX, libc.SOCK_STREAM | flags);
}

/** bind(2) to a path; 0 or a negated error number. */
export function bindTo(fd: Fd, path: string): number {
  const length = storeAddress(path);
  return libc.bind(fd, socketAddress.address, length);
}

/** connect(2) to a path; 0 or a negated error number. */
export function connectTo(fd: Fd, path: string): number {
  const length = storeAddress(path);
  return libc.connect(fd, socketAddress.address, length);
}

/** Accepts one connection, non-blocking and close-on-exec: an fd, or a negated error number. */
export function acceptFrom(listener: Fd): number {
  return libc.accept(listener, libc.SOCK_CLOEXEC | libc.SOCK_NONBLOCK);
}

/**
 * Makes out-of-band bytes plain ones. Otherwise recvmsg(2) drops them by itself, and with them it closes, here and now,
 * whatever fds they bring: a TCP socket among them lingers as long as its sender likes.
 */
export function keepOutOfBand(fd: Fd): void {
  libc.setSocketOption(fd, libc.SO_OOBINLINE, 1);
}

/** Makes {@link MessageBuffer.look} begin at the first byte that has come, and go on from there. Source: socket(7), SO_PEEK_OFF. */
export function lookFromStart(fd: Fd): void {
  libc.setSocketOption(fd, libc.SO_PEEK_OFF, 0);
}

/** Makes {@link MessageBuffer.look} begin at the first byte that has come, always. */
export function lookWithoutTrace(fd: Fd): void {
  libc.setSocketOption(fd, libc.SO_PEEK_OFF, -1);
}

/** Bytes that have come, were looked at, and not taken since. */
export function lookedAt(fd: Fd): number {
  const offset = new Int32Array(1);
  libc.getsockopt(fd, libc.SO_PEEK_OFF, offset);
  return Math.max(0, offset[0] ?? 0);
}

/** Ends a stream socket's traffic both ways for good; true when nothing is left in it that close(2) would have to let go. */
export function endsEmpty(fd: Fd): boolean {
  const domain = new Int32Array(1);
  const type = new Int32Array(1);
  if (libc.getsockopt(fd, libc.SO_DOMAIN, domain) < 0 || domain[0] !== libc.AF_UNIX) return false;
  // Every fd that waits in a stream came with at least one byte; in a datagram it need not.
  if (libc.getsockopt(fd, libc.SO_TYPE, type) < 0 || type[0] !== libc.SOCK_STREAM) return false;
  return libc.shutdown(fd, libc.SHUT_RDWR) === 0 && libc.ioctlForInt(fd, libc.SIOCINQ) === 0;
}

/** Who is at the other end, as the kernel recorded it when the connection was made. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** The peer's process and user. Source: unix(7), SO_PEERCRED. */
export function peerCredentials(fd: Fd): PeerCredentials {
  const values = new Int32Array(3);
  libc.getsockopt(fd, libc.SO_PEERCRED, values);
  const [pid = 0, uid = -1, gid = -1] = values;
  return { pid, uid, gid };
}

/** Makes closing a socket of any kind not wait for data to be sent; does nothing to other fds. */
export function clearLinger(fd: Fd): void {
  const STRUCT_LINGER_BYTES = 8;
  libc.clearSocketOption(fd, libc.SO_LINGER, STRUCT_LINGER_BYTES);
}

/** Whether an inherited fd is a Unix socket, and if so whether it listens or is connected. */
export function socketRole(fd: Fd): 'listening' | 'connected' | 'not a unix socket' {
  const domain = new Int32Array(1);
  const accepting = new Int32Array(1);
  if (libc.getsockopt(fd, libc.SO_DOMAIN, domain) < 0 || domain[0] !== libc.AF_UNIX)
    return 'not a unix socket';
  libc.getsockopt(fd, libc.SO_ACCEPTCONN, accepting);
  return accepting[0] === 0 ? 'connected' : 'listening';
}

// struct msghdr on 64-bit Linux: name, namelen, iov, iovlen, control, controllen (8 bytes each), flags.
const MSGHDR_IOV = 16;
const MSGHDR_IOVLEN = 24;
const MSGHDR_CONTROL = 32;
const MSGHDR_CONTROLLEN = 40;
const MSGHDR_FLAGS = 48;
const MSGHDR_BYTES = 56;
const IOVEC_BYTES = 16;
// struct cmsghdr: u64 length with the header, i32 level, i32 type; then the fds, i32 each.
const CMSGHDR_BYTES = 16;
const FD_BYTES = 4;

/** Fds that one message may bring. The largest legitimate one brings 8 (SET_MEM_TABLE); with more it is refused. Ours. */
export const MAX_RECEIVED_FDS = 16;
/** SCM_MAX_FD: the kernel passes no more in one message. Source: unix(7). */
export const MAX_SENT_FDS = 253;

/** Returned by {@link MessageBuffer.receive} when fds were lost: there was no free number here. */
export const FDS_TRUNCATED = -0x10000;

/** Told of each system call, before and after. */
export interface CallMark {
  enter(owner: number): void;
  leave(): void;
}

/** The buffers of recvmsg(2) and sendmsg(2), made once for each thread. */
export class MessageBuffer {
  /** Told of the calls, and for whom they are, until they are set again. */
  mark: CallMark | undefined;
  owner = 0;
  private readonly header = new NativeMemory(MSGHDR_BYTES);
  private readonly iovec = new NativeMemory(IOVEC_BYTES);
  private readonly control = new NativeMemory(CMSGHDR_BYTES + MAX_SENT_FDS * FD_BYTES);

  constructor() {
    this.header.setWide(MSGHDR_IOV, this.iovec.address);
    this.header.setWide(MSGHDR_IOVLEN, 1);
  }

  /**
   * Receives up to `length` bytes into `into` at `offset`, without waiting; appends the fds that came to `fds`,
   * which the caller owns from then on.
   *
   * Gives the bytes received, 0 at end of stream, a negated error number, or {@link FDS_TRUNCATED}.
   */
  receive(fd: Fd, into: NativeMemory, span: Span, fds: Fd[]): number {
    return this.withFds(this.call(fd, into, span, { flags: libc.MSG_CMSG_CLOEXEC, takesFds: true }), fds);
  }

  /** As receive(), but what has come stays in the socket too, fds included; see {@link lookFromStart}. */
  look(fd: Fd, into: NativeMemory, span: Span, fds: Fd[]): number {
    const flags = libc.MSG_CMSG_CLOEXEC | libc.MSG_PEEK;
    return this.withFds(this.call(fd, into, span, { flags, takesFds: true }), fds);
  }

  /** As look(), without the fds. */
  lookAtBytes(fd: Fd, into: NativeMemory, span: Span): number {
    return this.call(fd, into, span, { flags: libc.MSG_PEEK, takesFds: false });
  }

  /** As receive(), but fds that come are let go in the kernel, without close(2), which may wait for whoever serves the file. */
  receiveBytes(fd: Fd, into: NativeMemory, span: Span): number {
    return this.call(fd, into, span, { flags: 0, takesFds: false });
  }

  /** Whether fds came with the bytes that receiveBytes() has just given. */
  get broughtFds(): boolean {
    return ((this.header.words[MSGHDR_FLAGS / 4] ?? 0) & libc.MSG_CTRUNC) !== 0;
  }

  private call(
    fd: Fd,
    into: NativeMemory,
    span: Span,
    { flags, takesFds }: { readonly flags: number; readonly takesFds: boolean },
  ): number {
    // Room for all that the kernel can pass: it would close the rest here and now, which may take for ever.
    const capacity = CMSGHDR_BYTES + MAX_SENT_FDS * FD_BYTES;
    this.iovec.setWide(0, into.address + span.offset);
    this.iovec.setWide(8, span.length);
    this.header.setWide(MSGHDR_CONTROL, takesFds ? this.control.address : 0);
    this.header.setWide(MSGHDR_CONTROLLEN, takesFds ? capacity : 0);
    // SAFETY: the iovec lies inside `into`, the control length inside `control`; both outlive the call.
    this.mark?.enter(this.owner);
    const received = libc.recvmsg(fd, this.header.address, flags | libc.MSG_DONTWAIT);
    this.mark?.leave();
    return received;
  }

  private withFds(received: number, fds: Fd[]): number {
    if (received < 0) return received;
    this.collectFds(fds);
    const flags = this.header.words[MSGHDR_FLAGS / 4] ?? 0;
    return (flags & libc.MSG_CTRUNC) === 0 ? received : FDS_TRUNCATED;
  }

  private collectFds(fds: Fd[]): void {
    const filled = this.header.words[MSGHDR_CONTROLLEN / 4] ?? 0;
    const words = this.control.words;
    let at = 0;
    while (at + CMSGHDR_BYTES <= filled) {
      const length = words[at / 4] ?? 0;
      if (length < CMSGHDR_BYTES) return;
      if (words[at / 4 + 2] === libc.SOL_SOCKET && words[at / 4 + 3] === libc.SCM_RIGHTS) {
        const end = Math.min(at + length, filled);
        for (let p = at + CMSGHDR_BYTES; p + FD_BYTES <= end; p += FD_BYTES) {
          fds.push(asFd(words[p / 4] ?? -1));
        }
      }
      at += Math.ceil(length / 8) * 8;
    }
  }

  /**
   * Sends up to `span.length` bytes of `from` with `fds` (borrowed, at most 253), without waiting and without
   * SIGPIPE. Gives the bytes sent or a negated error number.
   */
  send(fd: Fd, from: NativeMemory, span: Span, fds: readonly Fd[] = []): number {
    this.iovec.setWide(0, from.address + span.offset);
    this.iovec.setWide(8, span.length);
    const controlBytes = fds.length === 0 ? 0 : CMSGHDR_BYTES + fds.length * FD_BYTES;
    this.header.setWide(MSGHDR_CONTROL, fds.length === 0 ? 0 : this.control.address);
    this.header.setWide(MSGHDR_CONTROLLEN, controlBytes);
    if (fds.length > 0) {
      this.control.setWide(0, controlBytes);
      this.control.words[2] = libc.SOL_SOCKET;
      this.control.words[3] = libc.SCM_RIGHTS;
      fds.forEach((passed, i) => (this.control.words[CMSGHDR_BYTES / 4 + i] = passed));
    }
    // SAFETY: as in receive().
    this.mark?.enter(this.owner);
    const sent = libc.sendmsg(fd, this.header.address, libc.MSG_DONTWAIT | libc.MSG_NOSIGNAL);
    this.mark?.leave();
    return sent;
  }
}

/** A part of a {@link NativeMemory}, in bytes. */
export interface Span {
  readonly offset: number;
  readonly length: number;
}
