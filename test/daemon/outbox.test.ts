// Replies: each byte goes out once, whatever the socket takes at a time, and whichever process goes on.
import { fstatSync } from 'node:fs';
import t from 'tap';
import { MAX_WAITING_BYTES, Outbox } from '../../daemon/outbox.js';
import { Errno } from '../../shared-memory/errno.js';
import { asFd, closeFd, type Fd, setNonBlocking } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';
import { MessageBuffer } from '../../shared-memory/unix-socket.js';
import { openSocketPair } from '../support/fd-kinds.js';

const NOBODY = { enter: () => undefined, leave: () => undefined };
const messages = new MessageBuffer();
const buffer = new NativeMemory(65_536);

/** All that has come. */
function readAll(socket: Fd): Buffer {
  const parts: Buffer[] = [];
  for (;;) {
    const got = messages.receive(socket, buffer, { offset: 0, length: 65_536 }, []);
    if (got <= 0) return Buffer.concat(parts);
    parts.push(Buffer.from(buffer.bytes.subarray(0, got)));
  }
}

/** What the next process goes on with: another fd of the same file. */
function next(outbox: Outbox, end: number): Outbox {
  const copy = asFd(libc.fcntl(outbox.fd, libc.F_DUPFD_CLOEXEC, 0));
  closeFd(outbox.fd);
  return Outbox.goOn(copy, end);
}

t.test('a full socket, and a new process after each piece: every byte once, in order', (t) => {
  const [near, far] = openSocketPair();
  setNonBlocking(near);
  let outbox = Outbox.create();
  const sent: Buffer[] = [];
  const received: Buffer[] = [];
  let filled = 0;
  for (let i = 0; i < 120; i++) {
    while (outbox.waiting < MAX_WAITING_BYTES - 20_000) {
      const reply = Buffer.alloc(1 + ((i * 7919) % 20_000), i + 1);
      sent.push(reply);
      outbox.add(reply);
    }
    const got = outbox.send(near, NOBODY, 1);
    if (got === -Errno.EAGAIN) filled++;
    outbox = next(outbox, outbox.end);
    if (i % 3 === 2) received.push(readAll(far));
  }
  t.ok(filled > 0, `the socket was full ${filled} times`);
  do {
    outbox.send(near, NOBODY, 1);
    received.push(readAll(far));
  } while (outbox.waiting > 0);
  received.push(readAll(far));
  t.ok(Buffer.concat(sent).equals(Buffer.concat(received)));
  t.equal(outbox.end, Buffer.concat(sent).length);
  const { blocks } = fstatSync(outbox.fd);
  t.ok(
    blocks * 512 < 3 * 2 ** 20 && outbox.end > 8 * 2 ** 20,
    `what was sent is given back: ${blocks * 512} bytes are left`,
  );
  for (const fd of [near, far, outbox.fd]) closeFd(fd);
  t.end();
});

t.test('a reply that was not written down is as if it had not been', (t) => {
  const [near, far] = openSocketPair();
  setNonBlocking(near);
  let outbox = Outbox.create();
  outbox.add(Buffer.from('first'));
  const { end } = outbox;
  outbox.add(Buffer.from('lost, and longer'));
  outbox = next(outbox, end);
  outbox.add(Buffer.from(' second'));
  t.equal(outbox.send(near, NOBODY, 1), 'first second'.length);
  t.equal(readAll(far).toString(), 'first second');
  for (const fd of [near, far, outbox.fd]) closeFd(fd);
  t.end();
});

t.test('a record that cannot be is refused', (t) => {
  for (const end of [-1, MAX_WAITING_BYTES + 1]) {
    const copy = asFd(libc.fcntl(Outbox.create().fd, libc.F_DUPFD_CLOEXEC, 0));
    t.throws(() => Outbox.goOn(copy, end), /sent up to 0/);
  }
  t.end();
});

t.test('a front-end that has hung up', (t) => {
  const [near, far] = openSocketPair();
  setNonBlocking(near);
  const outbox = Outbox.create();
  outbox.add(Buffer.from('reply'));
  closeFd(far);
  t.equal(outbox.send(near, NOBODY, 1), -Errno.EPIPE);
  for (const fd of [near, outbox.fd]) closeFd(fd);
  t.end();
});
