// One front-end's connection: bytes and fds in, whole messages to the device state, replies out.
//
// Data path: socket bytes -> header -> payload -> message. Exactly a header is read, then exactly its payload, so
// fds always belong to the message they came with and nothing is allocated before a size has been checked.
//
// A process may be killed anywhere, and the next one goes on: a message is written down before it leaves the socket
// (incoming-message.ts), and what it has changed, its reply included, before that leaves (outbox.ts). In between it is carried out again.
import { Errno, errnoName } from '../shared-memory/errno.js';
import { EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '../shared-memory/epoll.js';
import { type Fd } from '../shared-memory/fd.js';
import { poll } from '../shared-memory/libc.js';
import { Fault } from '../protocol/fault.js';
import { decodeHeader, type Header, HEADER_BYTES } from '../protocol/header.js';
import { decodeFrontendMessage, MAX_MEM_REGIONS } from '../protocol/message.js';
import { encodeU64Reply } from '../protocol/reply.js';
import { FrontendRequest, frontendRequestName, frontendRequestSpec } from '../protocol/request.js';
import type { DeviceState } from './device-state.js';
import type { EventLoop, Watch, Watcher } from './event-loop.js';
import type { FrontendRecord, Keep, Take } from './handover/frontend-record.js';
import { IncomingMessage, type MessageContext, type MessageEvents } from './incoming-message.js';
import { MAX_UNREAD_BYTES, type Outbox } from './outbox.js';
import { connectionBlocked } from './peer-calls.js';
import type { Timer } from './timers.js';

/** A message that has begun must be complete after this time. */
const MESSAGE_TIMEOUT_MS = 10_000;
/** Messages of one connection in one round, and its time, in which it may begin one more; then the others have their turn. Ours. */
const MESSAGES_PER_ROUND = 32;
const ROUND_MS = 0.3;

const ACK_OK = 0n;
const ACK_REFUSED = 1n;

/** What a connection tells its owner, who writes it down for the next process where it is to. */
export interface ConnectionEvents extends MessageEvents {
  /** A message was refused; the connection goes on. */
  refused(fault: Fault): void;
  /** The connection has ended and everything of it is let go. Without a fault the front-end has hung up. */
  ended(fault: Fault | undefined): void;
  /** A bug of ours; the connection has ended. */
  bug(error: unknown): void;
  /** Too much of what the front-end passed waits to be let go; its messages wait until resume(). */
  held(): void;
}

/** Speaks vhost-user with one front-end. Owns its socket and the device state that the front-end sets up; borrows the outbox. */
export class Connection implements Watcher, Timer {
  dueMs = Infinity;
  readonly state: DeviceState;
  private readonly fd: Fd;
  private readonly context: MessageContext;
  private readonly loop: EventLoop;
  private readonly events: ConnectionEvents;
  private readonly incoming: IncomingMessage;
  private readonly outbox: Outbox;
  private watch: Watch | undefined;
  private header: Header | undefined;
  /** True while the socket is full and EPOLLOUT is watched. */
  private blocked = false;
  /** True while the front-end's messages wait. */
  private isHeld = false;
  private ended = false;

  constructor(
    { fd, outbox }: { readonly fd: Fd; readonly outbox: Outbox },
    context: MessageContext,
    state: DeviceState,
    events: ConnectionEvents,
  ) {
    this.fd = fd;
    this.outbox = outbox;
    this.incoming = new IncomingMessage(fd, context, events);
    this.context = context;
    this.loop = context.loop;
    this.state = state;
    this.events = events;
  }

  /** All that another process needs to go on with this front-end. */
  record(keep: Keep): Omit<FrontendRecord, 'version' | 'device'> {
    return {
      socket: keep(this.fd),
      state: this.state.record(keep),
      message: this.incoming.record(keep),
      replies: { file: keep(this.outbox.fd), end: this.outbox.end },
    };
  }

  /** Goes on where the record says; on a fault the connection has ended. Called once, before open(). */
  restore(record: FrontendRecord, take: Take): void {
    const refused = this.incoming.restore(record.message, take) ?? this.state.restore(record.state, take);
    if (refused !== undefined) {
      this.end(refused);
      return;
    }
    const { received } = this.incoming;
    if (received > 0) this.loop.timers.armIn(this, MESSAGE_TIMEOUT_MS);
    if (received >= HEADER_BYTES) this.header = this.checkedHeader();
  }

  /** Starts to listen to the front-end. */
  open(): void {
    const watch = this.loop.watch(this.fd, EPOLLIN | EPOLLRDHUP, this);
    if (typeof watch === 'number') {
      this.end(
        new Fault('connection', 'socket_watch', `watching the connection failed: ${errnoName(watch)}`),
      );
      return;
    }
    this.watch = watch;
    this.sendReplies();
    // What a process before has received tells of itself no more.
    if (this.incoming.received > 0) this.receiveMessages();
  }

  onEvents(events: number): void {
    // What a front-end has sent before it left need not be read; as long as it is there, it can wait.
    if (this.isHeld && (events & EPOLLHUP) !== 0) this.end(undefined);
    if ((events & EPOLLOUT) !== 0) this.sendReplies();
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP)) !== 0) this.receiveMessages();
  }

  /** Ends the connection when the front-end has hung up, though messages of it may wait; tells whether it has ended. */
  endIfHungUp(): boolean {
    // The flags of poll(2) have the values of epoll's.
    const gone = EPOLLRDHUP | EPOLLHUP;
    if (!this.ended && (poll(this.fd, EPOLLRDHUP, 0) & gone) !== 0) this.end(undefined);
    return this.ended;
  }

  /** Ends the connection for a reason outside of its own messages. */
  endBecause(fault: Fault | undefined): void {
    this.end(fault);
  }

  /** The front-end's messages have waited long enough. */
  resume(): void {
    if (!this.isHeld) return;
    this.isHeld = false;
    this.rewatch();
  }

  private receiveMessages(): void {
    const endMs = performance.now() + ROUND_MS;
    for (let cost = 0; cost < MESSAGES_PER_ROUND && (cost === 0 || performance.now() < endMs);) {
      if (this.ended || this.mustWait()) return;
      if (!this.receiveHeader() || !this.receivePayload()) return;
      // Mapping memory takes longer than all others together.
      cost += this.header?.request === FrontendRequest.SetMemTable ? MESSAGES_PER_ROUND : 1;
      this.takeMessage();
      if (this.loop.calls.isAccused(this.context.owner)) this.end(connectionBlocked());
    }
  }

  /** True between two messages while too much of what this front-end passed waits. */
  private mustWait(): boolean {
    if (this.isHeld) return true;
    if (this.incoming.received > 0 || !this.context.disposal.isFull()) return false;
    this.isHeld = true;
    this.rewatch();
    this.events.held();
    return true;
  }

  private rewatch(): void {
    if (this.ended || this.watch === undefined) return;
    const reading = this.isHeld ? 0 : EPOLLIN | EPOLLRDHUP;
    this.loop.rewatch(this.watch, reading | (this.blocked ? EPOLLOUT : 0));
  }

  /** True once a valid header is here. */
  private receiveHeader(): boolean {
    if (this.header !== undefined) return true;
    if (!this.receiveUpTo(HEADER_BYTES)) return false;
    this.header = this.checkedHeader();
    return this.header !== undefined;
  }

  /** True once the payload that the header announces is here too. */
  private receivePayload(): boolean {
    return this.header !== undefined && this.receiveUpTo(HEADER_BYTES + this.header.payloadBytes);
  }

  private receiveUpTo(wanted: number): boolean {
    while (this.incoming.received < wanted) {
      if (this.ended || !this.receive(wanted)) return false;
    }
    return !this.ended;
  }

  /** Reads towards `wanted` bytes of this message; false when there is nothing more to do now. */
  private receive(wanted: number): boolean {
    const got = this.incoming.receive(wanted);
    if (this.loop.calls.isAccused(this.context.owner)) {
      this.end(connectionBlocked());
      return false;
    }
    if (got === -Errno.EAGAIN) return false;
    if (got === -Errno.EINTR) return true;
    if (got instanceof Fault || got <= 0) {
      this.end(got instanceof Fault ? got : this.endOfStream(got));
      return false;
    }
    if (this.dueMs === Infinity) this.loop.timers.armIn(this, MESSAGE_TIMEOUT_MS);
    return true;
  }

  private endOfStream(result: number): Fault | undefined {
    if (result < 0 && result !== -Errno.ECONNRESET) {
      return new Fault('connection', 'socket_failed', `receiving failed: ${errnoName(result)}`);
    }
    const { received } = this.incoming;
    if (received === 0) return undefined;
    const expected = HEADER_BYTES + (this.header?.payloadBytes ?? 0);
    return new Fault(
      'connection',
      'message_cut',
      `expected ${expected} bytes of a message, got ${received} and the end`,
    );
  }

  /** The header in the buffer; undefined when it is refused, and the connection has ended. */
  private checkedHeader(): Header | undefined {
    const header = decodeHeader(this.incoming.bytes(0, HEADER_BYTES));
    if (header instanceof Fault) {
      this.end(header);
      return undefined;
    }
    const spec = frontendRequestSpec(header.request);
    if (header.reply) {
      this.end(
        new Fault(
          'connection',
          'reply_flag',
          `expected a request, got a reply to ${frontendRequestName(header.request)}`,
        ),
      );
    } else if (spec === undefined) {
      this.end(
        new Fault('connection', 'unknown_request', `expected a known request, got request ${header.request}`),
      );
    }
    return this.ended ? undefined : header;
  }

  /** Handles the complete message in the buffer, and sends what is due. */
  private takeMessage(): void {
    const header = this.header;
    if (header === undefined) return;
    const payload = this.incoming.bytes(HEADER_BYTES, HEADER_BYTES + header.payloadBytes);
    const fds = this.incoming.end();
    this.header = undefined;
    this.loop.timers.disarm(this);
    try {
      this.handle(header, payload, fds);
    } finally {
      for (const fd of fds) this.context.disposal.closeFd(fd);
    }
    if (this.ended) return;
    this.events.changed();
    this.sendReplies();
  }

  private handle(header: Header, payload: Uint8Array, fds: Fd[]): void {
    const spec = frontendRequestSpec(header.request);
    const most = spec?.maxFds === 'per-region' ? MAX_MEM_REGIONS : (spec?.maxFds ?? 0);
    if (spec?.maxFds === 0 && fds.length > 0) {
      const name = frontendRequestName(header.request);
      this.end(new Fault('connection', 'unexpected_fds', `expected no fds with ${name}, got ${fds.length}`));
      return;
    }
    const message = decodeFrontendMessage(header.request, payload);
    const surplus = fds.length > most;
    const handled =
      message instanceof Fault
        ? message
        : surplus
          ? new Fault(
              'request',
              'surplus_fds',
              `expected at most ${most} fds with ${frontendRequestName(header.request)}, got ${fds.length}`,
            )
          : this.state.handle(message, fds);
    if (handled instanceof Fault) {
      this.refuse(header, handled);
    } else if (handled !== undefined) {
      this.send(handled);
    } else if (header.needReply) {
      // Answered whether or not REPLY_ACK was agreed: QEMU 7.2 reconnects without negotiating, and waits.
      this.send(encodeU64Reply(header.request, ACK_OK));
    }
  }

  /** NACK where the front-end waits for an answer; otherwise it would go on in error, so it is closed. */
  private refuse(header: Header, fault: Fault): void {
    if (fault.scope !== 'request' || !header.needReply) {
      this.end(fault);
      return;
    }
    this.events.refused(fault);
    this.send(encodeU64Reply(header.request, ACK_REFUSED));
  }

  private send(reply: Uint8Array): void {
    this.outbox.add(reply, this.fd);
    const { unread } = this.outbox;
    if (unread > MAX_UNREAD_BYTES) {
      const message = `expected replies to be read, got ${unread} bytes of them without a moment at which all were`;
      this.end(new Fault('connection', 'replies_not_read', message));
    }
  }

  /** Sends what the socket takes; the rest waits for EPOLLOUT. */
  private sendReplies(): void {
    while (!this.ended && this.outbox.waiting > 0) {
      const sent = this.outbox.send(this.fd, this.loop.calls, this.context.owner);
      if (this.loop.calls.isAccused(this.context.owner)) {
        this.end(connectionBlocked());
        return;
      }
      if (sent === -Errno.EAGAIN || sent === -Errno.EINTR) break;
      if (sent <= 0) {
        this.end(
          sent === -Errno.EPIPE
            ? undefined
            : new Fault('connection', 'socket_failed', `sending failed: ${errnoName(sent)}`),
        );
      }
    }
    const blocked = !this.ended && this.outbox.waiting > 0;
    if (this.ended || this.watch === undefined || blocked === this.blocked) return;
    this.blocked = blocked;
    this.rewatch();
  }

  /** A message was begun and not finished in time. */
  onDue(): void {
    const seconds = MESSAGE_TIMEOUT_MS / 1000;
    this.end(
      new Fault(
        'connection',
        'message_timeout',
        `expected a whole message within ${seconds} s, got ${this.incoming.received} bytes`,
      ),
    );
  }

  onCrash(error: unknown): void {
    this.close();
    this.events.bug(error);
  }

  private end(fault: Fault | undefined): void {
    if (this.ended) return;
    this.close();
    this.events.ended(fault);
  }

  /** Lets go of everything: ring, guest memory, fds, socket. No event follows. */
  close(): void {
    if (this.ended) return;
    this.ended = true;
    this.loop.timers.disarm(this);
    this.state.close();
    if (this.watch !== undefined) this.loop.unwatch(this.watch);
    for (const fd of this.incoming.close()) this.context.disposal.closeFd(fd);
    this.context.disposal.endSocket(this.fd);
  }
}
