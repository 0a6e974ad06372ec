// What a service manager must not miss: it arrives in order, however full its socket was, and what cannot arrive is told.
import { join } from 'node:path';
import t from 'tap';
import { NotifyQueue } from '../../../daemon/systemd/notify-queue.js';
import { NotifySocket } from '../../../daemon/systemd/notify-socket.js';
import { ServiceManager } from '../../../daemon/systemd/service-manager.js';
import { openEventfd } from '../../../shared-memory/eventfd.js';
import { asFd, closeFd, type Fd } from '../../../shared-memory/fd.js';
import { NativeMemory } from '../../../shared-memory/ffi.js';
import { bindTo, MessageBuffer, openDatagramSocket } from '../../../shared-memory/unix-socket.js';
import { eventually, temporaryFolder } from '../../support/rng-daemon.js';

/** A socket in a service manager's place, and a reader of all that is in it; an fd is shown by `+`. */
function listen(t: { readonly teardown: (end: () => void) => unknown }) {
  const address = join(temporaryFolder(t), 'notify');
  const fd = asFd(openDatagramSocket());
  if (bindTo(fd, address) < 0) throw new Error(`binding ${address}`);
  const messages = new MessageBuffer();
  const buffer = new NativeMemory(4096);
  const received: string[] = [];
  const read = (): readonly string[] => {
    for (;;) {
      const fds: Fd[] = [];
      const got = messages.receive(fd, buffer, { offset: 0, length: 4096 }, fds);
      if (got < 0) return received;
      received.push(buffer.bytes.toString('utf8', 0, got) + '+'.repeat(fds.length));
      for (const one of fds) closeFd(one);
    }
  };
  return { address, fd, read };
}

/** Fills the socket; gives how many messages that took. */
function fill(address: string): number {
  const filler = NotifySocket.open(address);
  let count = 0;
  while ((filler?.send('FILL=1') ?? -1) >= 0) count++;
  filler?.close();
  return count;
}

await t.test(
  'a socket that is full: what must arrive does, in order, and nothing waits for it',
  async (t) => {
    const { address, read } = listen(t);
    let lost = 0;
    const queue = NotifyQueue.open(address, { lost: () => lost++, letGo: closeFd });
    const filled = fill(address);
    const kept = openEventfd();
    queue?.keep('a', kept);
    queue?.forget('b');
    queue?.tell('READY=1');
    closeFd(kept);
    t.same([...new Set(read())], ['FILL=1'], 'nothing of it was taken');
    t.ok(await eventually(() => read().length === filled + 3, 5000));
    t.same(read().slice(filled), ['FDSTORE=1\nFDPOLL=0\nFDNAME=a+', 'FDSTOREREMOVE=1\nFDNAME=b', 'READY=1']);
    t.equal(lost, 0);
    queue?.close();
  },
);

await t.test('a service that is ready while the socket is full is ready once it is read', async (t) => {
  const { address, read } = listen(t);
  const manager = new ServiceManager({ NOTIFY_SOCKET: address }, process.pid);
  const filled = fill(address);
  manager.ready({
    health: () => ({ status: 'ok', reasons: [] }),
    dataPlaneTurns: true,
    devices: () => [],
    sources: () => [],
  });
  manager.reloading();
  manager.reloaded();
  t.equal(read().length, filled);
  t.ok(await eventually(() => read().length === filled + 3, 5000));
  t.match(read()[filled], /^READY=1\nSTATUS=0 guests on 0 devices/);
  t.match(read()[filled + 1], /^RELOADING=1\nMONOTONIC_USEC=\d+$/);
  t.equal(read()[filled + 2], 'READY=1');
  manager.stopping();
});

t.test('too much waits: it is told, sent in pieces, and copies go where they are let go', (t) => {
  const { address, read } = listen(t);
  const filled = fill(address);
  let flushes = 0;
  const copies: Fd[] = [];
  const socket = NotifySocket.open(address);
  if (socket === undefined) throw new Error('no socket');
  const queue = new NotifyQueue(socket, {
    waits: () => flushes++,
    lost: (error) => t.fail(error),
    letGo: (fd) => copies.push(fd),
  });
  const kept = openEventfd();
  let count = 0;
  for (; !queue.isFull(); count++) queue.keep(String(count), kept);
  t.equal(count, 512);
  t.notOk(queue.isDrained());
  t.equal(read().length, filled);
  for (let left = count; left > 0; left = count - copies.length) {
    const before = copies.length;
    queue.flush();
    t.ok(copies.length - before <= 64 && copies.length > before, 'some at a time');
    t.equal(queue.isDrained(), copies.length >= count / 2);
    read();
  }
  t.same(
    read()
      .slice(filled)
      .map((text) => text.split('FDNAME=')[1]),
    Array.from({ length: count }, (_, i) => `${i}+`),
    'in order',
  );
  for (const fd of [...copies, kept]) closeFd(fd);
  queue.close();
  t.end();
});

t.test('a manager that has gone: what cannot be kept is told, with the reason', (t) => {
  const { address, fd } = listen(t);
  const reasons: string[] = [];
  const queue = NotifyQueue.open(address, { lost: (error) => reasons.push(error), letGo: closeFd });
  closeFd(fd);
  const kept = openEventfd();
  queue?.keep('a', kept);
  t.same(reasons, ['ECONNREFUSED']);
  t.equal(queue?.drain(), false, 'and it is not forgotten');
  closeFd(kept);
  queue?.close();
  t.end();
});
