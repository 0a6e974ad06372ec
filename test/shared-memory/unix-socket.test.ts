// Messages with file descriptors both ways, and how sockets are made and told apart.
import { fstatSync, openSync, readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { openEventfd, readEventfd, signal } from '../../shared-memory/eventfd.js';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';
import {
  acceptFrom,
  bindTo,
  connectTo,
  MAX_RECEIVED_FDS,
  MAX_SENT_FDS,
  MessageBuffer,
  openSocket,
  peerCredentials,
  socketRole,
} from '../../shared-memory/unix-socket.js';
import { openSocketPair } from '../support/fd-kinds.js';
import { temporaryFolder } from '../support/rng-daemon.js';

const messages = new MessageBuffer();
const outgoing = new NativeMemory(256);
const incoming = new NativeMemory(256);
for (let i = 0; i < 256; i++) outgoing.bytes[i] = i;
const { EAGAIN, EPIPE } = constants.errno;

/** Runs a test with connected sockets; in the end as many descriptors are open as before. */
function withSockets(name: string, body: (t: Test, a: Fd, b: Fd) => void): void {
  t.test(name, (t) => {
    const before = openCount();
    const [a, b] = openSocketPair();
    body(t, a, b);
    for (const fd of [a, b]) closeFd(fd);
    t.equal(openCount(), before, 'no descriptor is left open');
    t.end();
  });
}

function openCount(): number {
  return readdirSync('/proc/self/fd').length;
}

const whole = (length: number) => ({ offset: 0, length });

withSockets('bytes and fds come together, in order, both ways, at any number of fds up to 16', (t, a, b) => {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    for (const count of [0, 1, 2, 7, 8, 15, MAX_RECEIVED_FDS]) {
      const sent = Array.from({ length: count }, openEventfd);
      t.equal(messages.send(from, outgoing, { offset: 3, length: 20 }, sent), 20);
      const received: Fd[] = [];
      t.equal(messages.receive(to, incoming, { offset: 100, length: 100 }, received), 20);
      t.same(incoming.bytes.subarray(100, 120), outgoing.bytes.subarray(3, 23));
      t.equal(received.length, count);
      received.forEach((fd, i) => {
        signal(fd);
        const original = sent[i];
        if (original === undefined || readEventfd(original) !== 1)
          t.fail(`fd ${i} of ${count} is another one`);
      });
      t.ok(received.every(isCloseOnExec), 'received fds are close-on-exec');
      for (const fd of [...sent, ...received]) closeFd(fd);
    }
  }
});

function isCloseOnExec(fd: Fd): boolean {
  const F_GETFD = 1;
  return libc.fcntl(fd, F_GETFD, 0) === 1;
}

withSockets('row 35: as many fds as the kernel passes are received, so that it closes none', (t, a, b) => {
  for (const count of [MAX_RECEIVED_FDS + 1, 100, MAX_SENT_FDS]) {
    const sent = Array.from({ length: count }, openEventfd);
    t.equal(messages.send(a, outgoing, whole(12), sent), 12);
    const received: Fd[] = [];
    t.equal(messages.receive(b, incoming, whole(12), received), 12);
    t.equal(received.length, count, 'they are the caller’s to close');
    t.ok(received.every((fd) => fstatSync(fd).ino > 0));
    for (const fd of [...sent, ...received]) closeFd(fd);
  }
});

withSockets('fds stay with the bytes they were sent with', (t, a, b) => {
  const [first, second] = [openEventfd(), openEventfd()];
  messages.send(a, outgoing, whole(12), [first]);
  messages.send(a, outgoing, whole(8));
  messages.send(a, outgoing, whole(12), [second]);
  const counts: number[][] = [];
  for (const length of [12, 8, 12]) {
    const received: Fd[] = [];
    counts.push([messages.receive(b, incoming, whole(length), received), received.length]);
    for (const fd of received) closeFd(fd);
  }
  t.same(counts, [
    [12, 1],
    [8, 0],
    [12, 1],
  ]);
  for (const fd of [first, second]) closeFd(fd);
});

t.test(
  'nothing to read, a full socket, the end, and a peer that has gone are results, not exceptions',
  (t) => {
    const [a, b] = openSocketPair();
    t.equal(messages.receive(b, incoming, whole(10), []), -EAGAIN);
    let sent = 0;
    for (let result = 0; result >= 0; sent++) result = messages.send(a, outgoing, whole(256));
    t.ok(sent > 10, 'the socket took some messages, then EAGAIN');
    t.equal(messages.send(a, outgoing, whole(256)), -EAGAIN);
    closeFd(a);
    for (let result = 1; result > 0;) result = messages.receive(b, incoming, whole(256), []);
    t.equal(messages.receive(b, incoming, whole(256), []), 0, 'the end of the stream');
    t.equal(messages.send(b, outgoing, whole(1)), -EPIPE, 'without SIGPIPE');
    closeFd(b);
    t.end();
  },
);

t.test('paths: bind, listen, connect, accept, and who the peer is', (t) => {
  const folder = temporaryFolder(t);
  for (const name of ['a.sock', 'name with spaces', 'ümläut', 'x'.repeat(107 - folder.length - 1)]) {
    const path = join(folder, name);
    const listener = asFd(openSocket({ nonBlocking: true }));
    t.equal(bindTo(listener, path), 0, name);
    t.equal(libc.listen(listener, 1), 0);
    t.equal(socketRole(listener), 'listening');
    t.equal(acceptFrom(listener), -EAGAIN, 'no one has come yet');
    const client = asFd(openSocket({ nonBlocking: false }));
    t.equal(connectTo(client, path), 0);
    const server = asFd(acceptFrom(listener));
    t.equal(socketRole(server), 'connected');
    t.same(peerCredentials(server), { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
    t.ok(readdirSync(folder).includes(name), 'the file has exactly this name');
    for (const fd of [listener, client, server]) closeFd(fd);
  }
  t.end();
});

t.test('what is no Unix socket', (t) => {
  const file = asFd(openSync('/dev/null', 'r'));
  t.equal(socketRole(file), 'not a unix socket');
  closeFd(file);
  t.equal(socketRole(file), 'not a unix socket', 'nor is a number that is not open');
  const AF_INET = 2;
  const inet = asFd(libc.socket(AF_INET, libc.SOCK_STREAM));
  t.equal(socketRole(inet), 'not a unix socket');
  closeFd(inet);
  t.end();
});
