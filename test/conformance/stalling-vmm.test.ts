// What a VMM tried in order to hold up the daemon with what both hold: eventfds that are watched without end, fds that linger
// in a message, pipes whose lock is held. Each row carries the literal input of a finding; around each the stand serves a
// bystander on another device. Without the countermeasure the bystander is not served, or the peer is not closed, or what it
// passed is not let go.
//
// Leaves out: how long a stall is, because timings are not asserted; what a FUSE server or an io_uring can do.
import { readdirSync, readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { encodeRequest } from '../../protocol/reply.js';
import { FrontendRequest } from '../../protocol/request.js';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import { connectTo, MAX_SENT_FDS, MessageBuffer, openSocket } from '../../shared-memory/unix-socket.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import { openLingeringSocket, openSocketPair } from '../support/fd-kinds.js';
import { Frontend } from '../support/frontend.js';
import { waitUntil } from '../support/guest/deadline.js';
import { type LockedPipe, openLockedPipe } from '../support/locked-pipe.js';
import { contextSwitches, eventually, openFdCount } from '../support/rng-daemon.js';
import { openWatchedEventfd, watchOften } from '../support/watched-eventfd.js';
import { Stand } from './stand.js';
import { closeAll, SyntheticGuest } from './synthetic-guest.js';

const NO_PAYLOAD = new Uint8Array(0);
const RING_FD = { index: 0, noFd: false } as const;
/** Longer than any test waits. */
const LINGER_SECONDS = 60;

const stand = await Stand.start({ devices: 12 });
t.teardown(() => stand.stop());

t.test('a call eventfd that is watched 500,000 times: closed after a few signals', async (t) => {
  const guest = new SyntheticGuest();
  const call = openWatchedEventfd(500);
  const codes = await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.setUp(guest.ram, guest.ring);
    frontend.send({ request: FrontendRequest.SetVringCall, ...RING_FD }, { fds: [call.fd] });
    let signals = 0;
    for (; signals < 200 && !frontend.isClosed(0); signals++) {
      guest.offer();
      guest.publish();
      frontend.kickRing();
      if (!frontend.isClosed(0)) t.equal(stand.serveBystander(), undefined);
    }
    t.ok(frontend.isClosed(), `closed after ${signals} requests`);
  });
  t.strictSame(codes.at(-1), 'kept_out');
  t.match(codes.join(), /signal_blocked|connection_blocked/);
  call.close();
  guest.close();
});

t.test('a connection whose other end is watched 500,000 times: closed after a few replies', async (t) => {
  const codes = await stand.checked(t, (device) => {
    const socket = asFd(openSocket({ nonBlocking: false }));
    t.equal(connectTo(socket, device.path), 0);
    device.connections++;
    const frontend = Frontend.over(socket);
    const unwatch = watchOften(socket, 500);
    let replies = 0;
    for (; replies < 200 && !frontend.isClosed(0); replies++) {
      frontend.send({ request: FrontendRequest.GetFeatures });
      t.equal(stand.serveBystander(), undefined);
    }
    t.ok(frontend.isClosed(), `closed after ${replies} replies`);
    unwatch();
    frontend.close();
  });
  t.strictSame(codes, ['connection_blocked', 'kept_out']);
});

t.test('a second offence on one device keeps front-ends out for longer', async (t) => {
  const guest = new SyntheticGuest();
  const device = stand.nextDevice();
  const paused = (): string[] =>
    [
      ...stand.daemon.log.matchAll(new RegExp(`${device.name}: no front-end is accepted for (\\d+) s`, 'g')),
    ].map(([, seconds = '']) => seconds);
  for (const expected of [['10'], ['10', '60']]) {
    const frontend = device.connect();
    // The pause lasts 10 s, and no reply comes before it is over.
    await waitUntil(
      () => stand.codes(device).filter((code) => code === 'connected').length === expected.length,
      20_000,
      () => `expected to be accepted, got ${stand.daemon.log}`,
    );
    frontend.setUp(guest.ram, guest.ring);
    frontend.blockCall();
    guest.offer();
    guest.publish();
    frontend.kickRing();
    t.ok(frontend.isClosed());
    frontend.close();
    await waitUntil(
      () => paused().length === expected.length,
      5000,
      () => `expected pauses of ${expected.join()}, got ${stand.daemon.log}`,
    );
    t.strictSame(paused(), expected);
  }
  t.equal(stand.serveBystander(), undefined);
  guest.close();
});

/** Does something before the daemon can see any of it: it is to be the last holder of what is sent and closed. */
function unseen(work: () => void): void {
  process.kill(stand.daemon.pid, 'SIGSTOP');
  try {
    work();
  } finally {
    process.kill(stand.daemon.pid, 'SIGCONT');
  }
}

t.test('a lingering socket with an out-of-band byte: nothing is closed while it is received', async (t) => {
  const [lingering, peer] = openLingeringSocket(LINGER_SECONDS);
  const codes = await stand.checked(t, (device) => {
    const frontend = device.connect();
    t.ok(frontend.answers());
    unseen(() => {
      frontend.sendOutOfBand(1, lingering);
      closeFd(lingering);
      frontend.send({ request: FrontendRequest.GetFeatures });
    });
    t.equal(stand.serveBystander(), undefined);
    t.ok(frontend.isClosed(), 'the byte is one of the next header');
  });
  t.equal(codes.length, 1, codes.join());
  closeFd(peer);
});

t.test(
  `${MAX_SENT_FDS} fds in one message, the last one a lingering socket: the others are served`,
  async (t) => {
    const [lingering, peer] = openLingeringSocket(LINGER_SECONDS);
    const codes = await stand.checked(t, (device) => {
      const frontend = device.connect();
      const fds = [...Array<Fd>(MAX_SENT_FDS - 1).fill(frontend.kick), lingering];
      unseen(() => {
        frontend.sendRequest(FrontendRequest.SetMemTable, new Uint8Array(8), { fds });
        closeFd(lingering);
      });
      t.equal(stand.serveBystander(), undefined);
      t.ok(frontend.isClosed());
    });
    t.strictSame(codes, ['fds_truncated']);
    closeFd(peer);
  },
);

/** A Unix socket in which a lingering socket waits to be received; and the lingering one's other end. */
function openSocketWithLingering(): readonly [Fd, Fd] {
  const [outer, other] = openSocketPair();
  const [lingering, peer] = openLingeringSocket(LINGER_SECONDS);
  const byte = new NativeMemory(4);
  new MessageBuffer().send(other, byte, { offset: 0, length: 1 }, [lingering]);
  closeAll([other, lingering]);
  return [outer, peer];
}

/** Threads of a process that wait within close(2). */
function nativeThreads(pid: number): number {
  const tasks = readdirSync(`/proc/${pid}/task`);
  return tasks.filter((tid) => readFileSync(`/proc/${pid}/task/${tid}/syscall`, 'utf8').startsWith('3 '))
    .length;
}

t.test('sockets in which lingering sockets wait, more than there are threads: all are let go', async (t) => {
  const peers: Fd[] = [];
  const codes = await stand.checked(t, async (device) => {
    for (let i = 0; i < 8; i++) {
      const frontend = device.connect();
      const [outer, peer] = openSocketWithLingering();
      peers.push(peer);
      unseen(() => {
        frontend.sendRequest(FrontendRequest.GetFeatures, NO_PAYLOAD, { fds: [outer] });
        closeFd(outer);
      });
      t.ok(frontend.isClosed());
      t.equal(stand.serveBystander(), undefined);
    }
    // A descriptor leaves the table when its close begins, the thread when it is over.
    const { pid } = stand.daemon;
    t.ok(await eventually(() => nativeThreads(pid) === 0, 20_000), 'no thread waits any more');
  });
  closeAll(peers);
  t.strictSame(codes, Array<string>(8).fill('unexpected_fds'));
});

async function withLockedPipe(t: Test, work: (pipe: LockedPipe) => void | Promise<void>): Promise<void> {
  const pipe = openLockedPipe();
  if (pipe === undefined) {
    t.pass('a pipe can be locked', {
      skip: 'this user may not use userfaultfd(2): be root, or sysctl vm.unprivileged_userfaultfd=1',
    });
    return;
  }
  try {
    await work(pipe);
  } finally {
    await pipe.release();
  }
}

t.test('a pipe as call, and as err, whose lock is held: the others are served', async (t) => {
  const before = stand.footprint();
  await withLockedPipe(t, (pipe) => {
    const guest = new SyntheticGuest();
    const device = stand.nextDevice();
    const frontend = device.connect();
    frontend.setUp(guest.ram, guest.ring);
    frontend.expectOk({ request: FrontendRequest.SetVringErr, ...RING_FD }, [pipe.write]);
    frontend.expectOk({ request: FrontendRequest.SetVringCall, ...RING_FD }, [pipe.write]);
    closeFd(pipe.write);
    t.equal(stand.serveBystander(), undefined, 'while call is signalled');
    for (let i = 0; i < 3; i++)
      t.equal(guest.serveOnce(frontend), undefined, 'the guest itself gets its bytes');
    t.equal(stand.serveBystander(), undefined);
    guest.ring.availIndex = (guest.ring.availIndex + 100) & 0xffff;
    guest.publish();
    frontend.kickRing();
    t.ok(frontend.answers());
    t.equal(stand.serveBystander(), undefined, 'while err is signalled');
    frontend.close();
    guest.close();
  });
  await stand.settled(before);
});

t.test('a TCP socket as call or err is refused: its lock can be held as well', async (t) => {
  const [tcp, peer] = openLingeringSocket(0);
  const codes = await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.negotiate();
    for (const request of [FrontendRequest.SetVringCall, FrontendRequest.SetVringErr] as const)
      t.equal(frontend.acknowledged({ request, ...RING_FD }, [tcp]), false);
  });
  closeAll([tcp, peer]);
  t.strictSame(codes, ['call_fd_kind', 'err_fd_kind']);
});

t.test(
  'a close that no signal ends: what waits behind it is bounded, other devices are served',
  async (t) => {
    await withLockedPipe(t, async (pipe) => {
      const before = openFdCount(stand.daemon.pid);
      const device = stand.nextDevice();
      const frontend = device.connect();
      frontend.negotiate();
      const request = FrontendRequest.SetBackendReqFd;
      // The last copy of this end: closing it waits for the pipe's lock.
      unseen(() => {
        frontend.sendRequest(request, NO_PAYLOAD, { fds: [pipe.write], needReply: true });
        closeFd(pipe.write);
      });
      t.equal(frontend.receiveAck(), false);
      const [socket, other] = openSocketPair();
      const messages = Array<Uint8Array>(2000).fill(encodeRequest(request, NO_PAYLOAD, { needReply: false }));
      for (const message of messages) if (frontend.sendBytes(message, [socket]) < 0) break;
      const isTold = (): boolean => stand.codes(device).includes('held_up');
      await waitUntil(isTold, 10_000, () => `expected to be told, got ${stand.daemon.log}`);
      const waiting = openFdCount(stand.daemon.pid) - before;
      t.ok(waiting <= 100, `${waiting} descriptors wait`);
      t.equal(stand.serveBystander(), undefined);
      const healthy = stand.nextDevice().connect();
      t.ok(healthy.answers(), 'another device comes');
      healthy.close();

      await pipe.release();
      // The socket is full: this message has to wait for room.
      const question = encodeRequest(FrontendRequest.GetFeatures, NO_PAYLOAD, { needReply: false });
      t.equal(frontend.sendAll(question), question.length);
      t.ok(frontend.receive(), 'all was let go, and the front-end goes on');
      frontend.close();
      closeAll([socket, other]);
      t.ok(await eventually(() => openFdCount(stand.daemon.pid) <= before), 'as many descriptors as before');
    });
  },
);

t.test('with guests that are connected and idle, nothing wakes the main thread', async (t) => {
  t.equal(stand.serveBystander(), undefined);
  const { pid } = stand.daemon;
  // Until the watch has gone to sleep.
  await eventually(() => false, 500);
  const before = contextSwitches(pid);
  await eventually(() => false, 2000);
  const woken = contextSwitches(pid) - before;
  t.ok(woken < 5, `${woken} times in 2 s`);
});
