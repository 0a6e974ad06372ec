// Replies: each byte goes out once, whatever the socket takes at a time, and whichever process goes on.
import { fstatSync } from 'node:fs';
import t from 'tap';
import { MAX_UNREAD_BYTES, Outbox } from '../../daemon/outbox.js';
import { Errno } from '../../shared-memory/errno.js';
import { asFd, closeFd, type Fd, setNonBlocking } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';
import { MessageBuffer } from '../../shared-memory/unix-socket.js';
import { openSocketPair } from '../support/fd-kinds.js';

/** Source: socket(7). */
const SO_SNDBUF = 7;

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
  libc.setSocketOption(near, SO_SNDBUF, 16_384);
  let outbox = Outbox.create();
  const sent: Buffer[] = [];
  const received: Buffer[] = [];
  let filled = 0;
  for (let i = 0; i < 120; i++) {
    // Everything was read: the next reply begins anew.
    let anew = outbox.waiting === 0 && i % 3 === 0;
    while (anew || outbox.unread < MAX_UNREAD_BYTES - 20_000) {
      anew = false;
      const reply = Buffer.alloc(1 + ((i * 7919) % 20_000), i + 1);
      sent.push(reply);
      outbox.add(reply, near);
    }
    outbox = next(outbox, outbox.end);
    if (outbox.send(near, NOBODY, 1) === -Errno.EAGAIN) filled++;
    outbox = next(outbox, outbox.end);
    if (i % 3 === 2) received.push(readAll(far));
  }
  t.ok(filled > 0, `the socket was full ${filled} times`);
  while (outbox.waiting > 0) {
    outbox.send(near, NOBODY, 1);
    received.push(readAll(far));
  }
  received.push(readAll(far));
  const bytes = Buffer.concat(sent);
  t.ok(bytes.equals(Buffer.concat(received)));
  t.ok(bytes.length > 4 * MAX_UNREAD_BYTES, `${bytes.length} bytes`);
  t.ok(
    fstatSync(outbox.fd).blocks * 512 <= 2 * MAX_UNREAD_BYTES,
    'which took no more memory than may be unread',
  );
  for (const fd of [near, far, outbox.fd]) closeFd(fd);
  t.end();
});

t.test('a reply that was not written down is as if it had not been', (t) => {
  const [near, far] = openSocketPair();
  let outbox = Outbox.create();
  outbox.add(Buffer.from('first'), near);
  const { end } = outbox;
  outbox.add(Buffer.from('lost, and longer'), near);
  outbox = next(outbox, end);
  outbox.add(Buffer.from(' second'), near);
  t.equal(outbox.send(near, NOBODY, 1), 'first second'.length);
  t.equal(readAll(far).toString(), 'first second');
  for (const fd of [near, far, outbox.fd]) closeFd(fd);
  t.end();
});

t.test(
  'replies of any length that begin anew, and the process ends before they are sent, or before they are written down',
  (t) => {
    for (const lengths of [
      [1, 100],
      [100, 1],
      [7, 7],
    ]) {
      const [near, far] = openSocketPair();
      let outbox = Outbox.create();
      let expected = '';
      let got = '';
      for (let i = 0; i < 12; i++) {
        const reply = String.fromCharCode(65 + i).repeat(lengths[i % 2] ?? 1);
        const { end } = outbox;
        // Once it is not written down, and made again.
        outbox.add(Buffer.from(reply), near);
        outbox = next(outbox, end);
        outbox.add(Buffer.from(reply), near);
        outbox = next(outbox, outbox.end);
        t.equal(outbox.waiting, reply.length);
        t.equal(outbox.send(near, NOBODY, 1), reply.length);
        outbox = next(outbox, outbox.end);
        t.equal(outbox.waiting, 0);
        expected += reply;
        if (i % 4 !== 3) got += readAll(far).toString();
      }
      t.equal(got + readAll(far).toString(), expected);
      t.ok(outbox.unread <= 200, 'what was read is not counted any more');
      for (const fd of [near, far, outbox.fd]) closeFd(fd);
    }
    t.end();
  },
);

t.test('a new front-end has nothing of the one before', (t) => {
  const [near, far] = openSocketPair();
  let outbox = Outbox.create();
  outbox.add(Buffer.from('for the first'), near);
  outbox.startOver();
  outbox = next(outbox, outbox.end);
  t.equal(outbox.waiting, 0);
  outbox.add(Buffer.from('for the second'), near);
  outbox.send(near, NOBODY, 1);
  t.equal(readAll(far).toString(), 'for the second');
  for (const fd of [near, far, outbox.fd]) closeFd(fd);
  t.end();
});

t.test('a record that cannot be is refused', (t) => {
  for (const end of [-1, 2 ** 40]) {
    const copy = asFd(libc.fcntl(Outbox.create().fd, libc.F_DUPFD_CLOEXEC, 0));
    t.throws(() => Outbox.goOn(copy, end), /sent up to 0/);
  }
  t.end();
});

t.test('a front-end that has hung up', (t) => {
  const [near, far] = openSocketPair();
  setNonBlocking(near);
  const outbox = Outbox.create();
  outbox.add(Buffer.from('reply'), near);
  closeFd(far);
  t.equal(outbox.send(near, NOBODY, 1), -Errno.EPIPE);
  for (const fd of [near, outbox.fd]) closeFd(fd);
  t.end();
});
