// The epoll instance: tokens and generations come back as they were given, edges come once for each write.
import { openSync } from 'node:fs';
import { constants } from 'node:os';
import t from 'tap';
import { Epoll, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from '../../shared-memory/epoll.js';
import { openEventfd, readEventfd, signal } from '../../shared-memory/eventfd.js';
import { asFd, closeFd } from '../../shared-memory/fd.js';
import { openSocketPair } from '../support/fd-kinds.js';

t.test('tokens and generations, up to 32 bits, and more events than one call takes', (t) => {
  const epoll = new Epoll();
  const fds = Array.from({ length: 100 }, openEventfd);
  fds.forEach((fd, i) => t.equal(epoll.add(fd, EPOLLIN, 0x7fff_ff00 + i, 1000 + i), 0));
  t.equal(epoll.wait(0), 0, 'nothing has happened');
  for (const fd of fds) signal(fd);
  const seen = new Map<number, number>();
  for (let round = 0; round < 4; round++) {
    const count = epoll.wait(0);
    t.ok(count > 0 && count <= 64);
    for (let i = 0; i < count; i++) {
      t.equal(epoll.eventMask(i), EPOLLIN);
      seen.set(epoll.eventToken(i), epoll.eventGeneration(i));
    }
  }
  t.equal(seen.size, 100, 'all come in turn');
  t.ok([...seen].every(([token, generation]) => generation - 1000 === token - 0x7fff_ff00));
  epoll.close();
  for (const fd of fds) closeFd(fd);
  t.end();
});

t.test('edge-triggered eventfds: one event for each write, though the counter is never read', (t) => {
  const epoll = new Epoll();
  const fd = openEventfd();
  epoll.add(fd, EPOLLIN | EPOLLET, 1, 1);
  for (let i = 0; i < 5; i++) {
    t.equal(epoll.wait(0), 0);
    signal(fd);
    signal(fd);
    t.equal(epoll.wait(0), 1);
  }
  t.equal(readEventfd(fd), 10);
  t.equal(epoll.wait(0), 0, 'reading is no event');
  epoll.close();
  closeFd(fd);
  t.end();
});

t.test('a change of what is watched, and an fd that is no longer watched', (t) => {
  const epoll = new Epoll();
  const [a, b] = openSocketPair();
  epoll.add(a, EPOLLIN, 1, 1);
  t.equal(epoll.wait(0), 0);
  t.equal(epoll.modify(a, EPOLLOUT, 2, 2), 0);
  t.equal(epoll.wait(0), 1);
  t.same([epoll.eventMask(0), epoll.eventToken(0), epoll.eventGeneration(0)], [EPOLLOUT, 2, 2]);
  epoll.remove(a);
  t.equal(epoll.wait(0), 0);
  t.equal(epoll.add(a, EPOLLIN | EPOLLRDHUP, 3, 3), 0);
  closeFd(b);
  t.equal(epoll.wait(0), 1);
  t.equal(epoll.eventMask(0) & (EPOLLRDHUP | EPOLLHUP), EPOLLRDHUP | EPOLLHUP, 'a peer that has gone');
  epoll.close();
  closeFd(a);
  t.end();
});

t.test('what cannot be watched is a result, not an exception', (t) => {
  const epoll = new Epoll();
  const folder = asFd(openSync('/', 'r'));
  t.equal(epoll.add(folder, EPOLLIN, 1, 1), -constants.errno.EPERM);
  closeFd(folder);
  t.equal(epoll.add(folder, EPOLLIN, 1, 1), -constants.errno.EBADF);
  const fd = openEventfd();
  epoll.add(fd, EPOLLIN, 1, 1);
  t.equal(epoll.add(fd, EPOLLIN, 2, 2), -constants.errno.EEXIST);
  t.doesNotThrow(() => epoll.remove(asFd(-1)));
  epoll.close();
  closeFd(fd);
  t.end();
});

t.test('a wait takes as long as it is told', (t) => {
  const epoll = new Epoll();
  const startMs = performance.now();
  t.equal(epoll.wait(30), 0);
  t.ok(performance.now() - startMs >= 29);
  epoll.close();
  t.end();
});
