// A client of an EGD server, over a Unix socket or TCP, for a thread with an event loop of its own. Raw: what arrives is
// tested behind this file.
//
// It keeps asking while bytes are wanted, over every failure of the server: a connection that is lost, silent or wrong is
// closed and made again after a while, and what it left unanswered is asked again. Bad-input rows 153 to 164, F27.
import { isIP, connect as openSocket, type Socket } from 'node:net';
import { Mapping, PAGE_BYTES } from '../../shared-memory/mapping.js';
import { networkHint } from '../systemd/sandbox.js';
import { Backoff } from './backoff.js';
import type { EgdAddress } from './egd-address.js';
import { EgdExchange, MAX_REQUEST_BYTES } from './egd-exchange.js';

/** What the client tells; nothing after close(). */
export interface EgdEvents {
  /** Some of the bytes that were wanted: borrowed, and wiped when the call returns. */
  bytes(chunk: Uint8Array): void;
  /** The server answers that it has no bytes now; told once, until it has some again. It is asked less often. */
  empty(): void;
  /** There is a connection; what comes over it is yet to be seen. */
  connected(): void;
  /** The connection, or the attempt to make one, has failed; the next attempt is under way. */
  failed(reason: string): void;
}

/** Times in ms. */
export interface EgdTiming {
  /** So long may a connection be in the making, or a server that was asked be silent. */
  readonly silenceMs: number;
  /** Before a new attempt, at first and at most. */
  readonly firstRetryMs: number;
  readonly longestRetryMs: number;
  /** Before a server without bytes is asked again, at first and at most. */
  readonly firstEmptyWaitMs: number;
  readonly longestEmptyWaitMs: number;
}

const TIMING: EgdTiming = {
  silenceMs: 5000,
  firstRetryMs: 100,
  longestRetryMs: 30_000,
  firstEmptyWaitMs: 100,
  longestEmptyWaitMs: 5000,
};

/** Hides the round trip without asking a server for much more than it can have. Ours. */
const MAX_REQUESTS_IN_FLIGHT = 4;
/** All replies that can be in flight, with their count bytes. */
const RECEIVE_BYTES = MAX_REQUESTS_IN_FLIGHT * (1 + MAX_REQUEST_BYTES);
/** A connection without traffic is probed every 30 s. Ours. */
const TCP_OPTIONS = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 30_000 } as const;

export class EgdClient {
  private readonly address: EgdAddress;
  private readonly events: EgdEvents;
  private readonly silenceMs: number;
  private readonly mapping = Mapping.forSecrets(PAGE_BYTES).mapping;
  private readonly receiveBuffer = this.mapping.view(0, RECEIVE_BYTES);
  private readonly exchange: EgdExchange;
  private socket: Socket | undefined;
  private isConnected = false;
  private isClosed = false;
  /** Why the socket is about to close, when that was decided here. */
  private reason: string | undefined;
  private wanted = 0;
  private readonly retryBackoff: Backoff;
  private readonly emptyBackoff: Backoff;
  /** Set while the server has none: then it is asked by one request at a time, each after {@link emptyTimer}. */
  private isEmpty = false;
  private silenceTimer: NodeJS.Timeout | undefined;
  private retryTimer: NodeJS.Timeout | undefined;
  private emptyTimer: NodeJS.Timeout | undefined;

  /** Connects at once. `timing` is for tests. */
  constructor(address: EgdAddress, events: EgdEvents, timing: Partial<EgdTiming> = {}) {
    this.address = address;
    this.events = events;
    const times = { ...TIMING, ...timing };
    this.silenceMs = times.silenceMs;
    this.retryBackoff = new Backoff(times.firstRetryMs, times.longestRetryMs);
    this.emptyBackoff = new Backoff(times.firstEmptyWaitMs, times.longestEmptyWaitMs);
    const replyBuffer = this.mapping.view(RECEIVE_BYTES, MAX_REQUEST_BYTES);
    this.exchange = new EgdExchange(replyBuffer, (bytes) => this.onReply(bytes));
    this.connect();
  }

  /** Wants `bytes` more than before; never more than that will come. */
  want(bytes: number): void {
    this.wanted += bytes;
    if (this.isClosed || this.wanted === 0) return;
    // A server may close a connection that nobody uses; it is made again when it is needed.
    if (this.socket === undefined && this.retryTimer === undefined) this.connect();
    this.ask();
  }

  /** Ends the connection and wipes what has arrived. */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    for (const timer of [this.silenceTimer, this.retryTimer, this.emptyTimer]) clearTimeout(timer);
    // A socket that has closed writes no more into the mapping.
    if (this.socket === undefined) this.release();
    else this.socket.destroy();
  }

  private release(): void {
    this.receiveBuffer.fill(0);
    this.exchange.reset();
    this.mapping.unmap();
  }

  private connect(): void {
    this.retryTimer = undefined;
    this.reason = undefined;
    const { address } = this;
    const onread = { buffer: this.receiveBuffer, callback: (length: number) => this.onData(length) };
    const socket =
      address.kind === 'unix'
        ? openSocket({ path: address.path, onread })
        : openSocket({ host: address.host, port: address.port, ...TCP_OPTIONS, onread });
    this.socket = socket;
    socket.once('connect', () => this.onConnect());
    socket.once('end', () => socket.destroy());
    const hint = address.kind === 'tcp' ? networkHint : () => '';
    socket.on('error', ({ code, message }: NodeJS.ErrnoException) => {
      this.reason ??= code === undefined ? message : `${code}${hint(code)}`;
    });
    socket.once('close', () => this.onClose());
    // A look-up cannot be given up, and a second one would take a second thread of the pool: it takes what it takes.
    if (address.kind === 'tcp' && isIP(address.host) === 0)
      socket.once('lookup', () => this.startSilenceTimer());
    else this.startSilenceTimer();
  }

  private onConnect(): void {
    if (this.isClosed) return;
    this.isConnected = true;
    this.stopSilenceTimer();
    this.events.connected();
    this.ask();
  }

  /** Sends as many requests as there may be. */
  private ask(): void {
    if (!this.isConnected || this.isClosed || this.emptyTimer !== undefined) return;
    const { exchange } = this;
    const limit = this.isEmpty ? 1 : MAX_REQUESTS_IN_FLIGHT;
    const wasIdle = exchange.requestsInFlight === 0;
    const requests: Uint8Array[] = [];
    while (exchange.requestsInFlight < limit && exchange.bytesInFlight < this.wanted)
      requests.push(exchange.request(this.wanted - exchange.bytesInFlight));
    if (requests.length === 0) return;
    this.socket?.write(Buffer.concat(requests));
    if (wasIdle) this.startSilenceTimer();
  }

  /** `length` bytes lie in the receive buffer. Gives false to read no more. */
  private onData(length: number): boolean {
    if (this.isClosed || this.reason !== undefined) return false;
    const wrong = this.exchange.receive(this.receiveBuffer.subarray(0, length));
    this.receiveBuffer.fill(0, 0, length);
    if (wrong !== undefined) {
      this.drop(`no EGD server: ${wrong}`);
      return false;
    }
    if (this.exchange.requestsInFlight === 0) this.stopSilenceTimer();
    else this.silenceTimer?.refresh();
    this.ask();
    return true;
  }

  private onReply(bytes: Buffer): void {
    if (this.isClosed) return;
    if (bytes.length === 0) {
      this.onEmptyReply();
      return;
    }
    clearTimeout(this.emptyTimer);
    this.emptyTimer = undefined;
    this.isEmpty = false;
    this.emptyBackoff.reset();
    this.retryBackoff.reset();
    this.wanted -= bytes.length;
    this.events.bytes(bytes);
  }

  /** The server has none now. Several requests may be answered so at once: that is one wait. */
  private onEmptyReply(): void {
    this.emptyTimer ??= setTimeout(() => {
      this.emptyTimer = undefined;
      this.ask();
    }, this.emptyBackoff.next());
    if (this.isEmpty) return;
    this.isEmpty = true;
    this.events.empty();
  }

  private drop(reason: string): void {
    this.reason ??= reason;
    this.socket?.destroy();
  }

  private onClose(): void {
    this.socket = undefined;
    this.isConnected = false;
    if (this.isClosed) {
      this.release();
      return;
    }
    this.stopSilenceTimer();
    clearTimeout(this.emptyTimer);
    this.emptyTimer = undefined;
    const unanswered = this.exchange.requestsInFlight;
    this.exchange.reset();
    this.receiveBuffer.fill(0);
    // The end of a connection that nobody needs now is no failure.
    if (this.reason === undefined && this.wanted === 0) return;
    this.retryTimer = setTimeout(() => this.connect(), this.retryBackoff.next());
    this.events.failed(this.reason ?? `it closed the connection with ${unanswered} requests unanswered`);
  }

  private startSilenceTimer(): void {
    if (this.isClosed) return;
    this.stopSilenceTimer();
    const { silenceMs } = this;
    const what = this.isConnected ? 'answer' : 'connection';
    this.silenceTimer = setTimeout(() => this.drop(`no ${what} within ${silenceMs} ms`), silenceMs);
  }

  private stopSilenceTimer(): void {
    clearTimeout(this.silenceTimer);
    this.silenceTimer = undefined;
  }
}
