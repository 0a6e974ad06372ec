// vhost-user, "Ancillary data" and "Vring file descriptor": bad-input.md, "File descriptors", rows 31 to 45, against the
// real daemon.
//
// Left out: a kick fd that hangs up (row 45), because only eventfds are taken as kick and an eventfd cannot; what can
// hang up is call, which is tested. Repeats of 100,000 and 1,000,000 are 500 and 2,000: a leak of one descriptor each
// shows at the first.
import { execFileSync } from 'node:child_process';
import { openSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import t, { type Test } from 'tap';
import { MAX_PAYLOAD_BYTES } from '../../protocol/header.js';
import { encodeFrontendMessage } from '../../protocol/message.js';
import { FrontendRequest, frontendRequestName } from '../../protocol/request.js';
import { openEventfd, readEventfd, signal } from '../../shared-memory/eventfd.js';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import { openMemfd } from '../../shared-memory/memfd.js';
import { MAX_RECEIVED_FDS, MAX_SENT_FDS, openSocket } from '../../shared-memory/unix-socket.js';
import {
  addToEventfd,
  openBlockingEventfd,
  openPipe,
  openSocketPair,
  openTimerfd,
  readSome,
} from '../support/fd-kinds.js';
import type { Frontend } from '../support/frontend.js';
import { waitUntil } from '../support/guest/deadline.js';
import { openFiles } from '../support/guest/proc-files.js';
import { checkRefusal, type Refusal, sendWire, Stage, wire } from './refusals.js';
import { type Device, Stand } from './stand.js';
import { closeAll, SyntheticGuest } from './synthetic-guest.js';

const NO_PAYLOAD = new Uint8Array(0);
/** Descriptors of one connection that may wait to be closed; the daemon's limit may be as low as 1024. */
const MOST_WAITING = 512;
const RING_FD = { index: 0, noFd: false } as const;

function eventfds(count: number): Fd[] {
  return Array.from({ length: count }, () => openEventfd());
}

/** Row 31: n regions and another number of fds. */
function memTable(regions: number, fds: number): Refusal {
  const title = `31: SET_MEM_TABLE with ${regions} regions and ${fds} fds`;
  const surplus = fds > 8;
  return {
    title,
    code: surplus ? 'surplus_fds' : 'memory_fd_count',
    message: () => ({
      ...wire({
        request: FrontendRequest.SetMemTable,
        regions: Array.from({ length: regions }, (_, i) => ({
          guestPhysAddr: BigInt(i) << 20n,
          size: 4096n,
          userAddr: BigInt(i) << 20n,
          mmapOffset: 0n,
        })),
      }),
      fds: eventfds(fds),
    }),
  };
}

const KICK_KINDS: Readonly<Record<string, () => Fd>> = {
  'a regular file': () => openMemfd('rngd', 4096),
  'a directory': () => openFile(tmpdir(), 'r'),
  '/dev/zero': () => openFile('/dev/zero', 'r+'),
  '/dev/hwrng or another character device': () => openFile('/dev/null', 'r+'),
  'a socket, as our own listener is': () => asFd(openSocket({ nonBlocking: true })),
  'an epoll': () => asFd(libc.epollCreate(libc.EPOLL_CLOEXEC)),
  'a timerfd': openTimerfd,
  'a pipe': () => {
    const [read, write] = openPipe();
    closeFd(write);
    return read;
  },
};

function openFile(path: string, flags: string): Fd {
  return asFd(openSync(path, flags));
}

const REFUSALS: readonly Refusal[] = [
  ...[
    [2, 1],
    [2, 3],
    [2, 0],
    [1, 0],
    [8, 7],
    [8, 9],
  ].map(([regions = 0, fds = 0]) => memTable(regions, fds)),
  ...Object.entries(KICK_KINDS).map(([kind, open]) => ({
    title: `39: ${kind} as kick`,
    code: 'kick_fd_kind',
    message: () => wire({ request: FrontendRequest.SetVringKick, ...RING_FD }, [open()]),
  })),
  ...(['SetVringCall', 'SetVringErr'] as const).map((name) => ({
    title: `39: /dev/zero as ${name}`,
    code: name === 'SetVringCall' ? 'call_fd_kind' : 'err_fd_kind',
    message: () => wire({ request: FrontendRequest[name], ...RING_FD }, [openFile('/dev/zero', 'r+')]),
  })),
  ...(['SetVringKick', 'SetVringCall', 'SetVringErr'] as const).flatMap((name) => [
    {
      title: `31: ${name} that announces an fd and brings none`,
      code: 'vring_fd',
      message: () => wire({ request: FrontendRequest[name], ...RING_FD }),
    },
    {
      title: `31: ${name} that announces no fd and brings one`,
      code: 'vring_fd',
      message: () => wire({ request: FrontendRequest[name], index: 0, noFd: true }, eventfds(1)),
    },
    {
      title: `31: ${name} with two fds`,
      code: 'surplus_fds',
      message: () => wire({ request: FrontendRequest[name], ...RING_FD }, eventfds(2)),
    },
  ]),
  {
    title: '39: an eventfd as SET_BACKEND_REQ_FD',
    code: 'backend_req_fd',
    stage: Stage.Negotiated,
    message: () => wire({ request: FrontendRequest.SetBackendReqFd }, eventfds(1)),
  },
];

const stand = await Stand.start({ devices: REFUSALS.length + 24 });
t.teardown(() => stand.stop());

/** Runs work with a guest whose ring runs. */
async function withRunningRing(
  t: Test,
  work: (frontend: Frontend, guest: SyntheticGuest, device: Device) => void | Promise<void>,
): Promise<string[]> {
  const guest = new SyntheticGuest();
  const codes = await stand.checked(t, async (device) => {
    const frontend = device.connect();
    frontend.setUp(guest.ram, guest.ring);
    await work(frontend, guest, device);
  });
  guest.close();
  return codes;
}

for (const refused of REFUSALS) t.test(`row ${refused.title}: NACK`, (t) => checkRefusal(t, stand, refused));

const NO_FDS = [
  FrontendRequest.GetFeatures,
  FrontendRequest.SetFeatures,
  FrontendRequest.SetVringNum,
] as const;
for (const request of NO_FDS) {
  for (const count of [1, MAX_SENT_FDS]) {
    t.test(`row 32: ${frontendRequestName(request)} with ${count} fds: the connection ends`, async (t) => {
      const codes = await stand.checked(t, (device) => {
        const frontend = device.connect();
        const fds = eventfds(count);
        frontend.sendRequest(request, new Uint8Array(request === 1 ? 0 : 8), { fds, needReply: true });
        closeAll(fds);
        t.ok(frontend.isClosed());
      });
      t.strictSame(codes, [count === 1 ? 'unexpected_fds' : 'fds_truncated']);
    });
  }
}

const REPEATED: readonly { title: string; fds: number; refused: boolean; request: number }[] = [
  { title: '32: 500 times GET_FEATURES with 1 fd', fds: 1, refused: false, request: 1 },
  { title: '32: 500 times GET_FEATURES with 253 fds', fds: MAX_SENT_FDS, refused: false, request: 1 },
  {
    title: '33: 500 times GET_INFLIGHT_FD with an fd',
    fds: 1,
    refused: false,
    request: FrontendRequest.GetInflightFd,
  },
  {
    title: '33: 2,000 times SET_INFLIGHT_FD with its fd and one more',
    fds: 2,
    refused: true,
    request: FrontendRequest.SetInflightFd,
  },
  {
    title: '33: 2,000 times SET_INFLIGHT_FD with its fd',
    fds: 1,
    refused: true,
    request: FrontendRequest.SetInflightFd,
  },
];
const INFLIGHT = encodeFrontendMessage({
  request: FrontendRequest.SetInflightFd,
  mmapSize: 4096n,
  mmapOffset: 0n,
  numQueues: 1,
  queueSize: 8,
  paddingBytes: 4,
});
for (const { title, fds: count, refused, request } of REPEATED) {
  t.test(`row ${title}: each is closed`, async (t) => {
    await stand.checked(t, async (device) => {
      const fds = eventfds(count);
      const payload = request === FrontendRequest.GetFeatures ? NO_PAYLOAD : INFLIGHT;
      let frontend = device.connect();
      const held = await stand.steadyFootprint(frontend);
      for (let i = 0; i < (refused ? 2000 : 500); i++) {
        frontend.sendRequest(request, payload, { fds, needReply: true });
        const outcome = refused ? frontend.receiveAck() === false : frontend.isClosed();
        if (!outcome) t.fail(`at ${i}`);
        if (refused) continue;
        frontend.close();
        frontend = device.connect();
      }
      await stand.holdsNoMoreThan(held, frontend);
      closeAll(fds);
    });
  });
}

t.test(`row 35: one fd more than the control buffer takes: the connection ends`, async (t) => {
  const codes = await withRunningRing(t, (frontend, guest) => {
    const fds = eventfds(MAX_RECEIVED_FDS + 1);
    sendWire(
      frontend,
      { ...wire({ request: FrontendRequest.SetMemTable, regions: guest.ram.regions }), fds },
      true,
    );
    t.ok(frontend.isClosed());
  });
  t.strictSame(codes, ['fds_truncated']);
});

t.test('row 36: recvmsg without a free descriptor: closed, no stale number is used', async (t) => {
  const { pid } = stand.daemon;
  const limit = (soft: number | string): void =>
    void execFileSync('prlimit', [`--pid=${pid}`, `--nofile=${soft}:`]);
  const [, soft = ''] = /Max open files\s+(\d+)/.exec(readFileSync(`/proc/${pid}/limits`, 'utf8')) ?? [];
  const codes = await withRunningRing(t, (frontend, guest) => {
    t.equal(guest.serveOnce(frontend), undefined);
    limit(3);
    sendWire(frontend, wire({ request: FrontendRequest.SetVringCall, ...RING_FD }, eventfds(1)), true);
    t.ok(frontend.isClosed());
    t.equal(stand.serveBystander(), undefined, 'the bystander is served meanwhile');
    limit(soft);
  });
  t.strictSame(codes, ['fds_truncated']);
});

t.test('row 37: an oversize header with fds: the connection ends', async (t) => {
  const codes = await withRunningRing(t, (frontend) => {
    const fds = eventfds(8);
    const header = new Uint8Array(
      Uint32Array.of(FrontendRequest.SetMemTable, 1, MAX_PAYLOAD_BYTES + 1).buffer,
    );
    frontend.sendBytes(header, fds);
    closeAll(fds);
    t.ok(frontend.isClosed());
  });
  t.strictSame(codes, ['payload_too_large']);
});

for (const semaphore of [false, true]) {
  const kind = semaphore ? 'semaphore-mode' : 'blocking';
  t.test(`row 40: a ${kind} eventfd as kick serves, made non-blocking, without a busy loop`, async (t) => {
    await withRunningRing(t, async (frontend, guest) => {
      const kick = openBlockingEventfd({ semaphore });
      addToEventfd(kick, 1000);
      frontend.expectOk({ request: FrontendRequest.SetVringKick, ...RING_FD }, [kick]);
      t.ok((libc.fcntl(kick, libc.F_GETFL, 0) & libc.O_NONBLOCK) !== 0, 'O_NONBLOCK');
      for (let i = 0; i < 20; i++) t.equal(guest.serveOnce(frontend, kick), undefined);
      const before = cpuTicks(stand.daemon.pid);
      await new Promise((resolve) => setTimeout(resolve, 500));
      const ticks = cpuTicks(stand.daemon.pid) - before;
      t.ok(ticks <= 10, `${ticks} of 50 ticks of CPU time while nothing happens`);
      closeFd(kick);
    });
  });
}

/** CPU time of a process in ticks of 10 ms. Source: proc(5), /proc/PID/stat. */
function cpuTicks(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return Number(fields[11]) + Number(fields[12]);
}

t.test('row 41: call at its maximum counts as signalled', async (t) => {
  const codes = await withRunningRing(t, (frontend, guest) => {
    const call = openBlockingEventfd({ semaphore: false });
    for (let i = 0; i < 2 ** 12; i++) addToEventfd(call, 2 ** 52 - 1);
    fillUp(call);
    frontend.expectOk({ request: FrontendRequest.SetVringCall, ...RING_FD }, [call]);
    for (let i = 0; i < 20; i++) t.equal(guest.serveOnce(frontend), undefined);
    closeFd(call);
  });
  t.strictSame(codes, []);
});

/** Signals until the descriptor takes no more. */
function fillUp(fd: Fd): void {
  libc.fcntl(fd, libc.F_SETFL, libc.O_NONBLOCK);
  for (let i = 0; signal(fd) > 0; i++) if (i > 1_000_000) throw new Error('it never fills up');
  libc.fcntl(fd, libc.F_SETFL, 0);
}

t.test('row 41: a full blocking pipe as call counts as signalled; nothing blocks', async (t) => {
  const codes = await withRunningRing(t, (frontend, guest) => {
    const [read, write] = openPipe();
    fillUp(write);
    frontend.expectOk({ request: FrontendRequest.SetVringCall, ...RING_FD }, [write]);
    for (let i = 0; i < 20; i++) t.equal(guest.serveOnce(frontend), undefined);
    closeAll([read, write]);
  });
  t.strictSame(codes, []);
});

const CLOSED_CALLS: readonly { title: string; open: () => readonly [Fd, Fd] }[] = [
  { title: 'row 41: a pipe whose reader has gone', open: openPipe },
  { title: 'row 45: a socket that has hung up', open: openSocketPair },
];
for (const { title, open } of CLOSED_CALLS) {
  t.test(`${title} as call: it is dropped, the ring stops, err is signalled once`, async (t) => {
    const codes = await withRunningRing(t, async (frontend, guest) => {
      t.equal(guest.serveOnce(frontend), undefined);
      const [ours, theirs] = open();
      frontend.expectOk({ request: FrontendRequest.SetVringCall, ...RING_FD }, [theirs]);
      t.ok(readSome(ours, 5000) > 0, 'signalled once when it was set');
      const held = await stand.steadyFootprint(frontend);
      closeAll([ours, theirs]);
      guest.offer();
      guest.publish();
      frontend.kickRing();
      t.equal(frontend.waitErr(), 1, 'err');
      t.ok(frontend.answers(), 'the connection goes on');
      const without = held.files.length - 1;
      await waitUntil(
        () => openFiles(stand.daemon.pid).length === without,
        5000,
        () => `expected ${without} open files, got ${openFiles(stand.daemon.pid).length}`,
      );
      for (let i = 0; i < 5; i++) frontend.kickRing();
      t.ok(frontend.answers());
      t.equal(frontend.waitErr(0), 0, 'err was signalled once');
      t.strictSame(guest.strayWrites(), []);

      frontend.getVringBase();
      frontend.startRing(guest.ram, guest.ring, guest.ring.deviceUsedIndex);
      frontend.waitUsed(guest.ring, 1);
      t.equal(guest.serveOnce(frontend), undefined, 'served again after GET_VRING_BASE');
    });
    t.strictSame(codes, ['call_failed']);
  });
}

t.test('row 43: kick replaced while a kick is pending: the work is done, the old is closed', async (t) => {
  await withRunningRing(t, async (frontend, guest) => {
    const held = await stand.steadyFootprint(frontend);
    const olds: Fd[] = [];
    for (let i = 0; i < 50; i++) {
      const kick = openEventfd();
      guest.offer();
      guest.publish();
      // In one go, so that the daemon finds the kick and its replacement at the same time.
      signal(olds.at(-1) ?? frontend.kick);
      frontend.expectOk({ request: FrontendRequest.SetVringKick, ...RING_FD }, [kick]);
      t.equal(frontend.waitUsed(guest.ring, 1)[0]?.length, 64);
      olds.push(kick);
    }
    await stand.holdsNoMoreThan(held, frontend);
    const last = olds.at(-1) ?? frontend.kick;
    t.equal(guest.serveOnce(frontend, last), undefined, 'the last kick is the one that counts');
    const idle = guest.ring.deviceUsedIndex;
    guest.offer();
    guest.publish();
    for (const old of olds.slice(0, -1)) signal(old);
    t.ok(frontend.answers() && frontend.answers());
    t.equal(guest.ring.deviceUsedIndex, idle, 'an old kick is not watched any more');
    signal(last);
    frontend.waitUsed(guest.ring, 1);
    closeAll(olds);
  });
});

t.test('row 44: SET_VRING_KICK, CALL and ERR 2,000 times each: nothing piles up', async (t) => {
  await withRunningRing(t, async (frontend, guest) => {
    const held = await stand.steadyFootprint(frontend);
    let most = 0;
    for (let i = 0; i < 2000; i++) {
      frontend.expectOk({ request: FrontendRequest.SetVringKick, ...RING_FD }, [frontend.kick]);
      frontend.expectOk({ request: FrontendRequest.SetVringCall, ...RING_FD }, [frontend.call]);
      frontend.expectOk({ request: FrontendRequest.SetVringErr, ...RING_FD }, [frontend.err]);
      if (i % 50 === 0) most = Math.max(most, stand.footprint().files.length);
    }
    t.ok(most <= held.files.length + MOST_WAITING, `${most - held.files.length} wait to be closed at most`);
    await stand.holdsNoMoreThan(held, frontend);
    t.ok(readEventfd(frontend.err) < 0, 'err was not signalled');
    t.equal(guest.serveOnce(frontend), undefined);
  });
});
