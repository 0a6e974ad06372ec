// A synthetic front-end: speaks vhost-user to a real daemon, message by message, in the way a test wants it.
//
// Calls wait synchronously, with a deadline; the daemon under test is another process.
import { Errno } from '../../shared-memory/errno.js';
import { openEventfd, readEventfd, signal } from '../../shared-memory/eventfd.js';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';
import { connectTo, MessageBuffer, openSocket } from '../../shared-memory/unix-socket.js';
import { Fault } from '../../protocol/fault.js';
import { maskOf, ProtocolFeature, VirtioFeature } from '../../protocol/features.js';
import { decodeHeader, HEADER_BYTES } from '../../protocol/header.js';
import { encodeFrontendMessage, type FrontendMessage } from '../../protocol/message.js';
import { decodeU64, decodeVringState, encodeRequest } from '../../protocol/reply.js';
import { FrontendRequest } from '../../protocol/request.js';
import type { DriverRing } from './driver-ring.js';
import type { GuestRam } from './guest-ram.js';

const REPLY_TIMEOUT_MS = 5000;
const BUFFER_BYTES = 65536;
const MSG_OOB = 1;
/** Offsets of the byte (at 0), its struct iovec, the control message and the struct msghdr of {@link Frontend.sendOutOfBand}. */
const OUT_OF_BAND = { Iovec: 8, Control: 24, Header: 48, Bytes: 104 } as const;

/** How a message is sent. */
export interface SendOptions {
  readonly fds?: readonly Fd[];
  readonly needReply?: boolean;
}

/** A message from the back-end. */
export interface Reply {
  readonly request: number;
  readonly payload: Uint8Array;
}

/** What `setUp` makes of a ring. */
export interface SetUpOptions {
  readonly features?: bigint;
  readonly base?: number;
}

export const DEFAULT_FEATURES = maskOf(VirtioFeature.VERSION_1, VirtioFeature.PROTOCOL_FEATURES);

/** One connection to a device of the daemon. Owns its socket and eventfds. */
export class Frontend {
  readonly kick = openEventfd();
  readonly call = openEventfd();
  readonly err = openEventfd();
  private readonly fd: Fd;
  private readonly messages = new MessageBuffer();
  private readonly buffer = new NativeMemory(BUFFER_BYTES);
  private open = true;
  private connected = true;

  private constructor(fd: Fd) {
    this.fd = fd;
  }

  /** Connects to a device's socket; throws when nothing listens there. */
  static connect(path: string): Frontend {
    const fd = asFd(openSocket({ nonBlocking: false }));
    const result = connectTo(fd, path);
    if (result < 0) throw new Error(`connect to ${path}: ${result}`);
    return new Frontend(fd);
  }

  /** Speaks over a socket that is connected already (adopted). */
  static over(fd: Fd): Frontend {
    return new Frontend(fd);
  }

  /** Sends bytes as they are; gives the bytes sent, or a negated error number (the back-end may have closed). */
  sendBytes(bytes: Uint8Array, fds: readonly Fd[] = []): number {
    this.buffer.bytes.set(bytes);
    return this.messages.send(this.fd, this.buffer, { offset: 0, length: bytes.length }, fds);
  }

  /** Sends one byte out of band, with an fd. */
  sendOutOfBand(byte: number, fd: Fd): number {
    const memory = new NativeMemory(OUT_OF_BAND.Bytes);
    memory.words[0] = byte;
    memory.setWide(OUT_OF_BAND.Iovec, memory.address);
    memory.setWide(OUT_OF_BAND.Iovec + 8, 1);
    memory.words.set([20, 0, libc.SOL_SOCKET, libc.SCM_RIGHTS, fd], OUT_OF_BAND.Control / 4);
    memory.setWide(OUT_OF_BAND.Header + 16, memory.address + OUT_OF_BAND.Iovec);
    memory.setWide(OUT_OF_BAND.Header + 24, 1);
    memory.setWide(OUT_OF_BAND.Header + 32, memory.address + OUT_OF_BAND.Control);
    memory.setWide(OUT_OF_BAND.Header + 40, 24);
    return libc.sendmsg(this.fd, memory.address + OUT_OF_BAND.Header, MSG_OOB);
  }

  /** Sends a well-formed message and waits for nothing. */
  send(message: FrontendMessage, options: SendOptions = {}): void {
    const payload = encodeFrontendMessage(message);
    this.sendBytes(
      encodeRequest(message.request, payload, { needReply: options.needReply ?? false }),
      options.fds,
    );
  }

  /** Sends a request with a payload as it is, well-formed or not; as {@link sendBytes}. */
  sendRequest(request: number, payload: Uint8Array, options: SendOptions = {}): number {
    const message = encodeRequest(request, payload, { needReply: options.needReply ?? false });
    return this.sendBytes(message, options.fds);
  }

  /** Sends all bytes, waiting for room; fewer when the back-end has closed or takes nothing for 5 s. */
  sendAll(bytes: Uint8Array): number {
    let sent = 0;
    while (sent < bytes.length) {
      if (libc.poll(this.fd, libc.POLLOUT, REPLY_TIMEOUT_MS) <= 0) break;
      const n = this.sendBytes(bytes.subarray(sent, sent + BUFFER_BYTES));
      if (n < 0 && n !== -Errno.EAGAIN) break;
      sent += Math.max(0, n);
    }
    return sent;
  }

  /** Takes up to `count` bytes of replies away, without waiting; gives how many, or a negated error number. */
  discard(count: number): number {
    return this.messages.receive(this.fd, this.buffer, { offset: 0, length: count }, []);
  }

  /** The next message from the back-end, or undefined when it closes the connection; throws after 5 s of silence. */
  receive(timeoutMs = REPLY_TIMEOUT_MS): Reply | undefined {
    if (!this.receiveExactly(0, HEADER_BYTES, timeoutMs)) return undefined;
    const header = decodeHeader(this.buffer.bytes.subarray(0, HEADER_BYTES));
    if (header instanceof Fault) throw header;
    if (!this.receiveExactly(HEADER_BYTES, header.payloadBytes, timeoutMs)) return undefined;
    const payload = Uint8Array.from(
      this.buffer.bytes.subarray(HEADER_BYTES, HEADER_BYTES + header.payloadBytes),
    );
    return { request: header.request, payload };
  }

  private receiveExactly(offset: number, length: number, timeoutMs: number): boolean {
    const fds: Fd[] = [];
    for (let got = 0; got < length;) {
      if (libc.poll(this.fd, libc.POLLIN, timeoutMs) === 0)
        throw new Error(`no reply within ${timeoutMs} ms`);
      const n = this.messages.receive(
        this.fd,
        this.buffer,
        { offset: offset + got, length: length - got },
        fds,
      );
      for (const fd of fds.splice(0)) closeFd(fd);
      if (isInterrupted(n)) continue;
      if (n <= 0) return false;
      got += n;
    }
    return true;
  }

  /** Sends with NEED_REPLY: true for OK, false for a NACK, undefined when the back-end closed instead. */
  acknowledged(message: FrontendMessage, fds: readonly Fd[] = []): boolean | undefined {
    this.send(message, { fds, needReply: true });
    return this.receiveAck();
  }

  /** The answer to a NEED_REPLY: true for OK, false for a NACK, undefined when the back-end closed instead. */
  receiveAck(): boolean | undefined {
    const reply = this.receive();
    if (reply === undefined) return undefined;
    const value = decodeU64(reply.payload);
    if (value instanceof Fault) throw value;
    return value === 0n;
  }

  /** Sends a request that is answered with a u64. */
  getU64(
    request:
      | typeof FrontendRequest.GetFeatures
      | typeof FrontendRequest.GetProtocolFeatures
      | typeof FrontendRequest.GetQueueNum
      | typeof FrontendRequest.GetStatus
      | typeof FrontendRequest.GetMaxMemSlots,
  ): bigint {
    this.send({ request });
    const value = decodeU64(this.receive()?.payload ?? new Uint8Array(0));
    if (value instanceof Fault) throw value;
    return value;
  }

  /** GET_VRING_BASE of ring 0: stops it; the index that it gives. */
  getVringBase(): number {
    this.send({ request: FrontendRequest.GetVringBase, index: 0, num: 0 });
    const state = decodeVringState(this.receive()?.payload ?? new Uint8Array(0));
    if (state instanceof Fault) throw state;
    return state.num;
  }

  /** True once the back-end has closed the connection, within `timeoutMs`. */
  isClosed(timeoutMs = REPLY_TIMEOUT_MS): boolean {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const left = Math.max(0, Math.ceil(deadline - performance.now()));
      if (libc.poll(this.fd, libc.POLLIN, left) === 0) return false;
      const n = this.messages.receive(this.fd, this.buffer, { offset: 0, length: BUFFER_BYTES }, []);
      if (isInterrupted(n)) continue;
      if (n <= 0) return true;
    }
  }

  /** True while the back-end still answers. */
  answers(): boolean {
    this.send({ request: FrontendRequest.GetFeatures });
    return this.receive() !== undefined;
  }

  /** The handshake of a front-end that knows REPLY_ACK, and the protocol features in `more`. */
  negotiate(features: bigint = DEFAULT_FEATURES, more = 0n): void {
    this.getU64(FrontendRequest.GetFeatures);
    this.getU64(FrontendRequest.GetProtocolFeatures);
    const protocolFeatures = maskOf(
      ProtocolFeature.MQ,
      ProtocolFeature.REPLY_ACK,
      ProtocolFeature.BACKEND_REQ,
      ProtocolFeature.RESET_DEVICE,
      ProtocolFeature.STATUS,
    );
    this.expectOk({ request: FrontendRequest.SetProtocolFeatures, features: protocolFeatures | more });
    this.expectOk({ request: FrontendRequest.SetOwner });
    this.expectOk({ request: FrontendRequest.SetFeatures, features });
  }

  expectOk(message: FrontendMessage, fds: readonly Fd[] = []): void {
    if (this.acknowledged(message, fds) !== true) throw new Error(`request ${message.request} was refused`);
  }

  setMemTable(ram: GuestRam): void {
    this.expectOk({ request: FrontendRequest.SetMemTable, regions: ram.regions }, ram.fds);
  }

  /** SET_VRING_ADDR for a driver's ring. */
  setVringAddr(ram: GuestRam, ring: DriverRing): void {
    this.expectOk({
      request: FrontendRequest.SetVringAddr,
      index: 0,
      flags: 0,
      descUserAddr: ram.userAddr(ring.descAddress),
      usedUserAddr: ram.userAddr(ring.usedAddress),
      availUserAddr: ram.userAddr(ring.availAddress),
      logGuestAddr: 0n,
    });
  }

  /** Everything from the handshake to a running ring, in QEMU's order. */
  setUp(ram: GuestRam, ring: DriverRing, options: SetUpOptions = {}): void {
    this.negotiate(options.features);
    this.setMemTable(ram);
    this.startRing(ram, ring, options.base ?? ring.availIndex);
  }

  /** From SET_VRING_NUM to SET_VRING_ENABLE. */
  startRing(ram: GuestRam, ring: DriverRing, base: number): void {
    this.expectOk({ request: FrontendRequest.SetVringNum, index: 0, num: ring.size });
    this.expectOk({ request: FrontendRequest.SetVringBase, index: 0, num: base });
    this.setVringAddr(ram, ring);
    this.expectOk({ request: FrontendRequest.SetVringKick, index: 0, noFd: false }, [this.kick]);
    this.expectOk({ request: FrontendRequest.SetVringCall, index: 0, noFd: false }, [this.call]);
    this.expectOk({ request: FrontendRequest.SetVringErr, index: 0, noFd: false }, [this.err]);
    this.expectOk({ request: FrontendRequest.SetVringEnable, index: 0, num: 1 });
  }

  /** Takes the signal of the ring's start, fills call and makes it block, so that the next signal waits. The flags belong to the open file, which both share. */
  blockCall(): void {
    this.waitCall();
    const flags = libc.fcntl(this.call, libc.F_GETFL, 0);
    libc.fcntl(this.call, libc.F_SETFL, flags & ~libc.O_NONBLOCK);
    const largest = new NativeMemory(8);
    largest.words.set([-2, -1]);
    libc.write(this.call, largest.address, 8);
  }

  kickRing(): void {
    signal(this.kick);
  }

  /** Waits for a signal on call; its count, or 0 when none came in time. */
  waitCall(timeoutMs = REPLY_TIMEOUT_MS): number {
    return waitEventfd(this.call, timeoutMs);
  }

  /** As {@link waitCall}, for the err fd. */
  waitErr(timeoutMs = REPLY_TIMEOUT_MS): number {
    return waitEventfd(this.err, timeoutMs);
  }

  /** Waits until `count` requests are complete; what the used ring says of them. Throws after 5 s. */
  waitUsed(ring: DriverRing, count: number): { id: number; length: number }[] {
    const deadline = performance.now() + REPLY_TIMEOUT_MS;
    const taken = [];
    while (taken.length < count) {
      const element = ring.take();
      if (element !== undefined) taken.push(element);
      else if (performance.now() > deadline) throw new Error(`got ${taken.length} of ${count} requests back`);
      else waitEventfd(this.call, 10);
    }
    return taken;
  }

  /** Closes the socket and keeps the eventfds, as no VMM should. */
  hangUp(): void {
    if (this.connected) closeFd(this.fd);
    this.connected = false;
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.hangUp();
    for (const fd of [this.kick, this.call, this.err]) closeFd(fd);
  }
}

function waitEventfd(fd: Fd, timeoutMs: number): number {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const left = Math.max(0, Math.ceil(deadline - performance.now()));
    if (libc.poll(fd, libc.POLLIN, left) === 0) return 0;
    const count = readEventfd(fd);
    if (!isInterrupted(count)) return Math.max(0, count);
  }
}

/** A signal, as that of a child that stops, has ended a wait before anything came. */
function isInterrupted(result: number): boolean {
  return result === -Errno.EAGAIN || result === -Errno.EINTR;
}
