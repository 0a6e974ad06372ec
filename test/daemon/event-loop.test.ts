// The event loop: events that are stale when their turn comes, turns of rings, watchers that throw.
import t from 'tap';
import { EventLoop, type Watch, type Watcher, watchWakeUp, type Workable } from '../../daemon/event-loop.js';
import { createMark, PeerCalls } from '../../daemon/peer-calls.js';
import { EPOLLET, EPOLLIN } from '../../shared-memory/epoll.js';
import { openEventfd, signal } from '../../shared-memory/eventfd.js';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';

/** A loop and a watch that ends run() when it is written to. */
function loopWithStop(): { loop: EventLoop; stop: () => void } {
  const loop = new EventLoop(0, new PeerCalls(createMark()), () => undefined);
  const stopFd = openEventfd();
  watchWakeUp(loop, stopFd, () => loop.pause());
  return { loop, stop: () => signal(stopFd) };
}

function watched(loop: EventLoop, fd: Fd, watcher: Watcher): Watch {
  const watch = loop.watch(fd, EPOLLIN | EPOLLET, watcher);
  if (typeof watch === 'number') throw new Error(`watch: ${watch}`);
  return watch;
}

const noCrash = (error: unknown): void => {
  throw error;
};

t.test('an event for a watch that an earlier event of the same round removed goes to no one', (t) => {
  const { loop, stop } = loopWithStop();
  const fds = [openEventfd(), openEventfd()];
  const seen: string[] = [];
  const watches: Watch[] = [];
  // Each one, when it comes first, replaces the other: the slot has a new owner, which has not had an event.
  fds.forEach((fd, i) => {
    watches[i] = watched(loop, fd, {
      onEvents: () => {
        seen.push(`old ${i}`);
        const other = watches[1 - i];
        if (other === undefined) return;
        loop.unwatch(other);
        closeFd(other.fd);
        watched(loop, openEventfd(), { onEvents: () => seen.push('new'), onCrash: noCrash });
      },
      onCrash: noCrash,
    });
  });
  for (const fd of fds) signal(fd);
  stop();
  loop.run();
  t.equal(seen.length, 1, seen.join());
  t.match(seen[0], /^old/);
  loop.close();
  t.end();
});

t.test('a watcher that throws is told so, and the others of the round are served', (t) => {
  const { loop, stop } = loopWithStop();
  const bug = new Error('a bug');
  const crashes: unknown[] = [];
  let served = 0;
  const fds = [openEventfd(), openEventfd(), openEventfd()];
  fds.forEach((fd, i) =>
    watched(loop, fd, {
      onEvents: () => {
        if (i === 1) throw bug;
        served++;
      },
      onCrash: (error) => crashes.push(error),
    }),
  );
  for (const fd of fds) signal(fd);
  stop();
  loop.run();
  t.equal(served, 2);
  t.same(crashes, [bug]);
  loop.close();
  for (const fd of fds) closeFd(fd);
  t.end();
});

/** A ring that wants `passes` more passes. */
class FakeRing implements Workable {
  passes: number;
  readonly order: string[];
  readonly name: string;
  crashed = false;

  constructor(name: string, passes: number, order: string[]) {
    this.name = name;
    this.passes = passes;
    this.order = order;
  }

  servePass(): boolean {
    this.order.push(this.name);
    this.passes--;
    if (this.passes < 0) throw new Error('a bug');
    return this.passes > 0;
  }

  hasWork(): boolean {
    return false;
  }

  cool(): boolean {
    return false;
  }

  onCrash(): void {
    this.crashed = true;
  }
}

t.test('rings take turns: each has one pass a round, however much it wants', (t) => {
  const { loop, stop } = loopWithStop();
  const order: string[] = [];
  const rings = [new FakeRing('a', 5, order), new FakeRing('b', 2, order), new FakeRing('c', 1, order)];
  for (const ring of rings) loop.enqueue(ring);
  for (let i = 0; i < 6; i++) {
    stop();
    loop.run();
  }
  const rounds = [3, 2, 1, 1, 1].map((count) => order.splice(0, count).sort().join(''));
  t.same(rounds, ['abc', 'ab', 'a', 'a', 'a']);
  t.same(order, []);
  loop.close();
  t.end();
});

t.test('a ring that stops is forgotten, one that throws is told so', (t) => {
  const { loop, stop } = loopWithStop();
  const order: string[] = [];
  const stopped = new FakeRing('stopped', 3, order);
  const broken = new FakeRing('broken', 0, order);
  loop.enqueue(stopped);
  loop.enqueue(broken);
  loop.forget(stopped);
  stop();
  loop.run();
  t.same(order, ['broken']);
  t.ok(broken.crashed);
  loop.close();
  t.end();
});

t.test('what cannot be watched is a result, and its slot is free again', (t) => {
  const { loop, stop } = loopWithStop();
  t.ok((loop.watch(asFd(-1), EPOLLIN, { onEvents: noCrash, onCrash: noCrash }) as number) < 0);
  const fd = openEventfd();
  let served = 0;
  watched(loop, fd, { onEvents: () => served++, onCrash: noCrash });
  signal(fd);
  stop();
  loop.run();
  t.equal(served, 1);
  loop.close();
  closeFd(fd);
  t.end();
});
