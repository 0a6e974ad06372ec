// A front-end's messages, in whatever segments and with whatever fds they come, while the process is "killed" at every point that writes
// something down: the next one has exactly the same bytes and fds. The kill is an exception; a real one is in conformance.
import fc from 'fast-check';
import t from 'tap';
import type { FrontendRecord } from '../../daemon/handover/frontend-record.js';
import { IncomingMessage, type MessageContext } from '../../daemon/incoming-message.js';
import { HEADER_BYTES } from '../../protocol/header.js';
import { Fault } from '../../protocol/fault.js';
import { Errno } from '../../shared-memory/errno.js';
import { openEventfd } from '../../shared-memory/eventfd.js';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';
import { keepOutOfBand, lookFromStart, MessageBuffer } from '../../shared-memory/unix-socket.js';
import { openSocketPair } from '../support/fd-kinds.js';

const NOBODY = { enter: () => undefined, leave: () => undefined };
const context = { loop: { calls: NOBODY }, owner: 1, disposal: { closeFd } } as unknown as MessageContext;

class Killed extends Error {}

/** Each open file that a test passes, by a copy of its own. */
class Files {
  private readonly copies: Fd[] = [];

  keep = (fd: Fd): number => {
    const known = this.copies.findIndex((copy) => libc.compareFiles(copy, fd) === 0);
    return known >= 0 ? known : this.copies.push(duplicate(fd)) - 1;
  };

  take = (number: number): Fd => {
    const copy = this.copies[number];
    if (copy === undefined) throw new Error(`no file ${number}`);
    return duplicate(copy);
  };

  close(): void {
    for (const copy of this.copies) closeFd(copy);
  }
}

function duplicate(fd: Fd): Fd {
  return asFd(libc.fcntl(fd, libc.F_DUPFD_CLOEXEC, 0));
}

/** A process that receives messages, and is killed whenever `kills` says so; then the next one goes on. */
class Receiver {
  /** Whole messages: bytes as text, and the numbers of their files. */
  readonly handled: { readonly text: string; readonly files: readonly number[] }[] = [];
  killed = 0;
  private readonly socket: Fd;
  private readonly files: Files;
  private readonly kills: Iterator<boolean>;
  private record: FrontendRecord['message'] = { bytes: '', fds: [], ahead: [], inSocket: 0 };
  private message: IncomingMessage;

  constructor(socket: Fd, files: Files, kills: Iterable<boolean>) {
    this.socket = socket;
    this.files = files;
    this.kills = kills[Symbol.iterator]();
    keepOutOfBand(socket);
    lookFromStart(socket);
    this.message = this.newMessage();
  }

  private newMessage(): IncomingMessage {
    return new IncomingMessage(this.socket, context, {
      changed: () => {
        this.mayBeKilled();
        this.record = this.message.record(this.files.keep);
        this.mayBeKilled();
      },
      taken: () => {
        this.mayBeKilled();
        this.record = { ...this.record, inSocket: 0 };
        this.mayBeKilled();
      },
    });
  }

  private mayBeKilled(): void {
    if (this.kills.next().value === true) throw new Killed();
  }

  /** Receives all that is there. */
  run(): void {
    for (;;) {
      try {
        if (!this.receive()) return;
      } catch (error) {
        if (!(error instanceof Killed)) throw error;
        this.restart();
      }
    }
  }

  private restart(): void {
    for (;;) {
      this.killed++;
      for (const fd of this.message.close()) closeFd(fd);
      this.message = this.newMessage();
      try {
        const failed = this.message.restore(this.record, this.files.take);
        if (failed !== undefined) throw failed;
        this.record = this.message.record(this.files.keep);
        return;
      } catch (error) {
        if (!(error instanceof Killed)) throw error;
      }
    }
  }

  /** False when nothing is left. */
  private receive(): boolean {
    const wanted = this.message.received < HEADER_BYTES ? HEADER_BYTES : HEADER_BYTES + this.payloadBytes();
    if (this.message.received < wanted) {
      const got = this.message.receive(wanted);
      if (got instanceof Fault) throw got;
      if (got === -Errno.EAGAIN) return false;
      if (got <= 0) throw new Error(`received ${got}`);
      return true;
    }
    const text = this.message.bytes(0, wanted).toString('latin1');
    const fds = this.message.end();
    const files = fds.map(this.files.keep);
    for (const fd of fds) closeFd(fd);
    this.mayBeKilled();
    this.record = this.message.record(this.files.keep);
    this.handled.push({ text, files });
    this.mayBeKilled();
    return true;
  }

  private payloadBytes(): number {
    return this.message.bytes(0, 1)[0] ?? 0;
  }

  close(): void {
    for (const fd of this.message.close()) closeFd(fd);
  }
}

/** Messages of a payload, whose length is their first byte; and where the stream of them is cut into segments, with how many fds. */
const streams = fc.record({
  payloads: fc.array(fc.nat(40), { minLength: 1, maxLength: 8 }),
  segments: fc.array(fc.record({ bytes: fc.integer({ min: 1, max: 60 }), fds: fc.nat(3) }), {
    maxLength: 12,
  }),
  /** After how many segments the receiver looks. */
  looks: fc.array(fc.nat(3), { maxLength: 12 }),
  kills: fc.array(fc.boolean(), { maxLength: 40 }),
});

t.test('every message comes once, with its own fds, wherever the process is killed', (t) => {
  const messages = new MessageBuffer();
  let kills = 0;
  fc.assert(
    fc.property(streams, (plan) => {
      const [near, far] = openSocketPair();
      const files = new Files();
      const receiver = new Receiver(near, files, plan.kills);
      const expected: { text: string; files: number[]; start: number }[] = [];
      const parts: Buffer[] = [];
      let start = 0;
      for (const [i, payload] of plan.payloads.entries()) {
        const bytes = Buffer.alloc(HEADER_BYTES + payload, i + 1);
        bytes[0] = payload;
        parts.push(bytes);
        expected.push({ text: bytes.toString('latin1'), files: [], start });
        start += bytes.length;
      }
      const stream = Buffer.concat(parts);
      const memory = new NativeMemory(stream.length);
      memory.bytes.set(stream);
      const segments = [...plan.segments, { bytes: stream.length, fds: 0 }];
      let sent = 0;
      for (const [i, segment] of segments.entries()) {
        const length = Math.min(segment.bytes, stream.length - sent);
        if (length === 0) break;
        const passed = Array.from({ length: segment.fds }, openEventfd);
        // The fds of a segment belong to the message of its first byte.
        const owner = expected.findLast((one) => one.start <= sent);
        owner?.files.push(...passed.map(files.keep));
        messages.send(far, memory, { offset: sent, length }, passed);
        for (const fd of passed) closeFd(fd);
        sent += length;
        if ((plan.looks[i] ?? 0) > 0) receiver.run();
      }
      receiver.run();
      kills += receiver.killed;
      receiver.close();
      files.close();
      closeFd(near);
      closeFd(far);
      const got = JSON.stringify(receiver.handled);
      return got === JSON.stringify(expected.map(({ text, files }) => ({ text, files })));
    }),
    { numRuns: 3000 },
  );
  t.ok(kills > 1000, `${kills} kills`);
  t.end();
});
