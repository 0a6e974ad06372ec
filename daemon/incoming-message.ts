// The message that a front-end is sending, as far as it has come.
//
// Bytes and fds are looked at first, then written down, and only then taken out of the socket. The kernel moves the socket's peek offset
// with each look and each taking, so whenever the process is killed, the next one can tell what it has already and what is still to come.
//
// A look finds the first fds that wait in the socket, even where they came with later bytes; only the taking tells whose they are. Until
// then they are held ahead of their message. Source: socket(7), SO_PEEK_OFF; Linux, unix_stream_read_generic().
import { Errno, errnoName } from '../shared-memory/errno.js';
import type { Fd } from '../shared-memory/fd.js';
import { NativeMemory } from '../shared-memory/ffi.js';
import { compareFiles } from '../shared-memory/libc.js';
import {
  FDS_TRUNCATED,
  lookFromStart,
  lookWithoutTrace,
  lookedAt,
  MAX_RECEIVED_FDS,
  MessageBuffer,
} from '../shared-memory/unix-socket.js';
import { Fault } from '../protocol/fault.js';
import { HEADER_BYTES, MAX_PAYLOAD_BYTES } from '../protocol/header.js';
import type { FrontendRecord, Keep, Take } from './handover/frontend-record.js';
import type { ServiceContext } from './ring-service.js';

/** The buffers of this thread, used by one message at a time. */
const messages = new MessageBuffer();
const taken = new NativeMemory(HEADER_BYTES + MAX_PAYLOAD_BYTES);

/** What it needs of its device. */
export type MessageContext = Pick<ServiceContext, 'loop' | 'owner' | 'disposal'>;

/** Where a message is written down. */
export interface MessageEvents {
  /** What record() gives has changed. */
  changed(): void;
  /** What was written down last is out of the socket. */
  taken(): void;
}

/** One connection's. Owns the fds that came, until they are given away. */
export class IncomingMessage {
  /** Bytes that are here. */
  received = 0;
  private readonly memory = new NativeMemory(HEADER_BYTES + MAX_PAYLOAD_BYTES);
  private readonly socket: Fd;
  private readonly context: MessageContext;
  private readonly events: MessageEvents;
  private readonly fds: Fd[] = [];
  /** Of the first fds that wait in the socket, copies. */
  private readonly ahead: Fd[] = [];
  /** Bytes of those here that are also still in the socket. */
  private inSocket = 0;

  /** `socket` is borrowed; it was told to {@link lookFromStart}, or restore() follows. */
  constructor(socket: Fd, context: MessageContext, events: MessageEvents) {
    this.socket = socket;
    this.context = context;
    this.events = events;
  }

  /** The bytes from `start` on to `end`, of the buffer that the next message comes in. */
  bytes(start: number, end: number): Buffer {
    return this.memory.bytes.subarray(start, end);
  }

  /** Ends the message; the fds that came with it are the caller's. */
  end(): Fd[] {
    this.received = 0;
    return this.fds.splice(0);
  }

  /** Ends all; every fd is the caller's. */
  close(): Fd[] {
    return [...this.end(), ...this.ahead.splice(0)];
  }

  /**
   * Receives towards `wanted` bytes of this message, without waiting. Gives the bytes that came, 0 at end of stream, a negated error
   * number, or a Fault about the fds.
   */
  receive(wanted: number): number | Fault {
    const span = { offset: this.received, length: wanted - this.received };
    // The first fds that wait are the same until they are taken.
    const came =
      this.ahead.length > 0
        ? this.marked().lookAtBytes(this.socket, this.memory, span)
        : this.marked().look(this.socket, this.memory, span, this.ahead);
    if (came === FDS_TRUNCATED) return noDescriptor();
    if (came <= 0) return came;
    if (this.ahead.length > MAX_RECEIVED_FDS) return tooManyFds();
    this.received += came;
    this.inSocket = came;
    this.events.changed();
    const tookFds = this.takeOut();
    if (tookFds instanceof Fault) return tookFds;
    if (!tookFds) {
      this.events.taken();
      return came;
    }
    this.takeAhead();
    this.events.changed();
    return this.fds.length > MAX_RECEIVED_FDS ? tooManyFds() : came;
  }

  /** Takes what is here out of the socket, and tells whether fds came with it; a fault when that cannot be. */
  private takeOut(): boolean | Fault {
    let tookFds = false;
    while (this.inSocket > 0) {
      const got = this.marked().receiveBytes(this.socket, taken, { offset: 0, length: this.inSocket });
      if (got > 0) {
        this.inSocket -= got;
        tookFds ||= messages.broughtFds;
      } else if (got !== -Errno.EINTR) {
        return takenByOthers(got);
      }
    }
    return tookFds;
  }

  private takeAhead(): void {
    this.fds.push(...this.ahead.splice(0));
  }

  /** The buffers, with whom the next call is for. */
  private marked(): MessageBuffer {
    messages.mark = this.context.loop.calls;
    messages.owner = this.context.owner;
    return messages;
  }

  /** Goes on where the record says; a fault, returned or thrown, when that cannot be. Called once, before all else. */
  restore({ bytes, fds, ahead, inSocket }: FrontendRecord['message'], take: Take): Fault | undefined {
    const here = Buffer.from(bytes, 'base64');
    this.memory.bytes.set(here);
    this.received = here.length;
    for (const number of fds) this.fds.push(take(number));
    for (const number of ahead) this.ahead.push(take(number));
    // Looked at, written down, and perhaps taken out; or not even written down, and then it is looked at again.
    this.inSocket = Math.min(inSocket, lookedAt(this.socket));
    const isTaken = inSocket > 0 && this.inSocket === 0;
    const tookFds = this.takeOut();
    if (tookFds instanceof Fault) return tookFds;
    if (tookFds || (isTaken && !this.isAheadInSocket())) this.takeAhead();
    lookFromStart(this.socket);
    return undefined;
  }

  /** Whether the first fds that wait in the socket are those ahead. Leaves nothing behind by which a look of before would be misread. */
  private isAheadInSocket(): boolean {
    const first: Fd[] = [];
    lookWithoutTrace(this.socket);
    const came = this.marked().look(this.socket, taken, { offset: 0, length: 1 }, first);
    const isSame = (fd: Fd, i: number): boolean => {
      const other = this.ahead[i];
      return other !== undefined && compareFiles(fd, other) === 0;
    };
    const areSame = first.length === this.ahead.length && first.every(isSame);
    for (const fd of first) this.context.disposal.closeFd(fd);
    if (came === FDS_TRUNCATED) throw noDescriptor();
    return areSame;
  }

  record(keep: Keep): FrontendRecord['message'] {
    return {
      bytes: this.memory.bytes.toString('base64', 0, this.received),
      fds: this.fds.map(keep),
      ahead: this.ahead.map(keep),
      inSocket: this.inSocket,
    };
  }
}

function takenByOthers(result: number): Fault {
  const got = result === 0 ? 'the end' : errnoName(result);
  return new Fault('connection', 'socket_failed', `expected to take what had come, got ${got}`);
}

function noDescriptor(): Fault {
  return fdsTruncated(
    'expected to receive the fds of a message, got no free descriptor for them here: raise LimitNOFILE',
  );
}

function tooManyFds(): Fault {
  return fdsTruncated(`expected at most ${MAX_RECEIVED_FDS} fds with a message, got more`);
}

function fdsTruncated(message: string): Fault {
  return new Fault('connection', 'fds_truncated', message);
}
