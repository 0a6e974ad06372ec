// What a hostile VMM tried in order to stop the others: files whose close(2) takes for ever, fds that cannot be looked at,
// fds without end, a ring that moves without end, a connection that keeps itself open. Each row carries the literal input
// of a finding (H2, H3, ...); around each the stand serves a bystander on another device.
//
// Leaves out: files of a FUSE server and huge pages, which this host does not have; what a guest tries (hostile-guest).
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdirSync, openSync, rmdirSync, symlinkSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { encodeFrontendMessage, type FrontendMessage } from '../../protocol/message.js';
import { encodeRequest } from '../../protocol/reply.js';
import { FrontendRequest, frontendRequestName } from '../../protocol/request.js';
import { openEventfd } from '../../shared-memory/eventfd.js';
import { closeFd, type Fd } from '../../shared-memory/fd.js';
import { MAX_RECEIVED_FDS } from '../../shared-memory/unix-socket.js';
import { DriverRing } from '../support/driver-ring.js';
import { openLingeringSocket, openSymlink } from '../support/fd-kinds.js';
import { Frontend } from '../support/frontend.js';
import { waitUntil } from '../support/guest/deadline.js';
import { GuestRam } from '../support/guest-ram.js';
import { eventually, openFdCount, residentKib, temporaryFolder } from '../support/rng-daemon.js';
import { Stand } from './stand.js';
import { SyntheticGuest } from './synthetic-guest.js';

const MIB = 2 ** 20;
const NO_PAYLOAD = new Uint8Array(0);
const RING_FD = { index: 0, noFd: false } as const;

const stand = await Stand.start({ devices: 24 });
t.teardown(() => stand.stop());

t.test(
  'H1: a call eventfd that is made blocking and full: the write is interrupted, the others are served',
  async (t) => {
    const guest = new SyntheticGuest();
    const codes = await stand.checked(t, (device) => {
      const frontend = device.connect();
      frontend.setUp(guest.ram, guest.ring);
      frontend.blockCall();
      guest.offer();
      guest.publish();
      frontend.kickRing();
      t.equal(stand.serveBystander(), undefined, 'while the signal of the first device blocks');
      t.ok(frontend.isClosed(), 'the front-end that did it is closed');
    });
    t.strictSame(codes, ['signal_blocked', 'kept_out']);
    guest.close();
  },
);

t.test('H2: a TCP socket that lingers for 60 s, sent with GET_FEATURES: the others are served', async (t) => {
  const peers: Fd[] = [];
  const codes = await stand.checked(t, (device) => {
    for (let i = 0; i < 3; i++) {
      const frontend = device.connect();
      const [lingering, peer] = openLingeringSocket(60);
      peers.push(peer);
      frontend.sendRequest(FrontendRequest.GetFeatures, NO_PAYLOAD, { fds: [lingering] });
      closeFd(lingering);
      t.ok(frontend.isClosed());
      t.equal(stand.serveBystander(), undefined, 'while the last copy is being closed');
    }
  });
  for (const peer of peers) closeFd(peer);
  t.strictSame(codes, ['unexpected_fds', 'unexpected_fds', 'unexpected_fds']);
});

t.test('H2: a TCP socket that lingers for 60 s as call: refused, and the others are served', async (t) => {
  const guest = new SyntheticGuest();
  const [lingering, peer] = openLingeringSocket(60);
  await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.setUp(guest.ram, guest.ring);
    const request = FrontendRequest.SetVringCall;
    t.equal(frontend.acknowledged({ request, ...RING_FD }, [lingering]), false);
    closeFd(lingering);
    t.equal(stand.serveBystander(), undefined);
    t.equal(guest.serveOnce(frontend), undefined, 'and so is the device itself');
  });
  closeFd(peer);
  guest.close();
});

/** A symbolic link whose path is longer than PATH_MAX, so that no path of it can be read. */
function openDeepSymlink(t: Pick<Test, 'teardown'>): Fd {
  const name = 'd'.repeat(200);
  const at = (folder: number, entry: string): string => `/proc/self/fd/${folder}/${entry}`;
  const openFolder = (path: string): number => openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  const folders = [openFolder(temporaryFolder(t))];
  const last = (): number => folders.at(-1) ?? -1;
  for (let depth = 0; depth < 22; depth++) {
    mkdirSync(at(last(), name));
    folders.push(openFolder(at(last(), name)));
  }
  symlinkSync('nowhere', at(last(), 'link'));
  const link = openSymlink(at(last(), 'link'));
  unlinkSync(at(last(), 'link'));
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    closeSync(folder);
    if (folders.length > 0) rmdirSync(at(last(), name));
  }
  return link;
}

function openShallowSymlink(t: Pick<Test, 'teardown'>): Fd {
  const path = join(temporaryFolder(t), 'link');
  symlinkSync('nowhere', path);
  return openSymlink(path);
}

const LINKS = { 'a symlink': openShallowSymlink, 'a symlink deeper than PATH_MAX': openDeepSymlink } as const;
const LINK_ROLES: readonly { code: string; message: FrontendMessage }[] = [
  { code: 'kick_fd_kind', message: { request: FrontendRequest.SetVringKick, ...RING_FD } },
  { code: 'call_fd_kind', message: { request: FrontendRequest.SetVringCall, ...RING_FD } },
  { code: 'err_fd_kind', message: { request: FrontendRequest.SetVringErr, ...RING_FD } },
  { code: 'backend_req_fd', message: { request: FrontendRequest.SetBackendReqFd } },
];
for (const [what, open] of Object.entries(LINKS)) {
  t.test(`H3: ${what}, opened with O_PATH, in every role: refused, nothing is kept of it`, async (t) => {
    const link = open(t);
    const ram = new GuestRam(
      Array.from({ length: 8 }, (_, i) => ({ guestPhysAddr: BigInt(i * MIB), bytes: MIB })),
    );
    const files = openFdCount(stand.daemon.pid);
    const codes = await stand.checked(t, async (device) => {
      const frontend = device.connect();
      frontend.negotiate();
      const held = await stand.steadyFootprint(frontend);
      for (let i = 0; i < 20; i++) {
        for (const { message, code } of LINK_ROLES)
          if (frontend.acknowledged(message, [link]) !== false) t.fail(`${code}: not refused`);
        const table: FrontendMessage = { request: FrontendRequest.SetMemTable, regions: ram.regions };
        if (frontend.acknowledged(table, [...ram.fds.slice(0, 7), link]) !== false)
          t.fail('memory: not refused');
      }
      await stand.holdsNoMoreThan(held, frontend);
    });
    t.ok(await eventually(() => openFdCount(stand.daemon.pid) === files), 'as many fds as before');
    t.strictSame(codes, [...LINK_ROLES.map(({ code }) => code), 'memory_fd_kind'], 'each is logged once');
    closeFd(link);
    ram.close();
  });
}

for (const each of [16, 1]) {
  t.test(`H4: a header byte by byte with ${each} fds each: closed when there are too many`, async (t) => {
    const codes = await stand.checked(t, (device) => {
      const frontend = device.connect();
      const fds = Array<Fd>(each).fill(frontend.kick);
      const header = encodeRequest(FrontendRequest.SetMemTable, new Uint8Array(4096), { needReply: false });
      const allowed = MAX_RECEIVED_FDS / each;
      for (let i = 0; i < allowed; i++) frontend.sendBytes(header.subarray(i, i + 1), fds);
      t.notOk(frontend.isClosed(100), `${MAX_RECEIVED_FDS} fds are not too many`);
      frontend.sendBytes(header.subarray(allowed, allowed + 1), fds);
      t.ok(frontend.isClosed(), 'the next byte of the message with an fd ends the connection');
    });
    t.strictSame(codes, ['fds_truncated']);
  });
}

t.test(
  'H5: SET_VRING_ADDR 66,000 times at changing addresses: the ring stops, memory is bounded',
  async (t) => {
    const moves = 66_000;
    const ram = new GuestRam([{ guestPhysAddr: 0n, bytes: 2 * MIB }]);
    const ring = new DriverRing(ram, 0n, 8);
    const { pid } = stand.daemon;
    const codes = await stand.checked(t, (device) => {
      const frontend = device.connect();
      frontend.setUp(ram, ring);
      const before = residentKib(pid);
      const messages = Array.from({ length: moves }, (_, i) => {
        const at = ram.userAddr(BigInt(16 * i));
        const addresses = { descUserAddr: at, availUserAddr: at + 128n, usedUserAddr: at + 256n };
        const request = FrontendRequest.SetVringAddr;
        const payload = { request, index: 0, flags: 0, logGuestAddr: 0n, ...addresses } as const;
        return encodeRequest(request, encodeFrontendMessage(payload), { needReply: false });
      });
      const bytes = Buffer.concat(messages);
      t.equal(frontend.sendAll(bytes), bytes.length, 'all are taken');
      t.ok(frontend.answers(), 'the connection lives');
      t.ok(frontend.waitErr(0) > 0, 'err was signalled');
      const grown = residentKib(pid) - before;
      t.ok(grown < 100 * 1024, `${grown} KiB more`);
      t.equal(stand.serveBystander(), undefined);
      frontend.close();

      const guest = new SyntheticGuest();
      const next = device.connect();
      next.setUp(guest.ram, guest.ring);
      t.equal(guest.serveOnce(next), undefined, 'the next connection starts anew');
      guest.close();
    });
    t.strictSame(codes, ['ring_restarts']);
    ram.close();
  },
);

t.test('H10: SET_VRING_KICK without an fd on a running ring, and back: served each way', async (t) => {
  const guest = new SyntheticGuest();
  const codes = await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.setUp(guest.ram, guest.ring);
    const nobody = openEventfd();
    for (let round = 0; round < 3; round++) {
      t.equal(guest.serveOnce(frontend), undefined, 'by kicks');
      frontend.expectOk({ request: FrontendRequest.SetVringKick, index: 0, noFd: true });
      for (let i = 0; i < 3; i++) t.equal(guest.serveOnce(frontend, nobody), undefined, 'without kicks');
      frontend.expectOk({ request: FrontendRequest.SetVringKick, ...RING_FD }, [frontend.kick]);
      t.equal(guest.serveOnce(frontend), undefined, 'by kicks again');
    }
    closeFd(nobody);
  });
  t.strictSame(codes, []);
  guest.close();
});

/** A VMM of its own: `DIST PATH REQUEST` connects, shares memory, passes its own end of the connection, and exits. */
const SELF_PASSING_VMM = `
  const [dist, path, request] = process.argv.slice(1);
  const { connectTo, openSocket } = await import(dist + 'shared-memory/unix-socket.js');
  const { Frontend } = await import(dist + 'test/support/frontend.js');
  const { GuestRam } = await import(dist + 'test/support/guest-ram.js');
  const socket = openSocket({ nonBlocking: false });
  if (connectTo(socket, path) !== 0) throw new Error('connect');
  const frontend = Frontend.over(socket);
  const ram = new GuestRam();
  frontend.negotiate();
  frontend.setMemTable(ram);
  frontend.expectOk({ request: Number(request), index: 0, noFd: false }, [socket]);
`;
for (const request of [
  FrontendRequest.SetVringCall,
  FrontendRequest.SetVringErr,
  FrontendRequest.SetBackendReqFd,
]) {
  t.test(`H12: a VMM passes its own end with ${frontendRequestName(request)} and exits`, async (t) => {
    const guest = new SyntheticGuest();
    const dist = new URL('../../', import.meta.url).href;
    const codes = await stand.checked(t, (device) => {
      const args = ['--input-type=module', '-e', SELF_PASSING_VMM, dist, device.path, String(request)];
      const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 20_000 });
      t.equal(status, 0, stderr);
      const next = device.connect();
      next.setUp(guest.ram, guest.ring);
      t.equal(guest.serveOnce(next), undefined, 'the next front-end is served');
    });
    t.strictSame(codes, []);
    guest.close();
  });
}

t.test('H15: 50 more connect while a front-end is: all are closed, the first is served', async (t) => {
  const before = stand.footprint();
  const device = stand.nextDevice();
  const guest = new SyntheticGuest();
  const first = device.connect();
  first.setUp(guest.ram, guest.ring);
  const others = Array.from({ length: 50 }, () => Frontend.connect(device.path));
  t.equal(guest.serveOnce(first), undefined);
  for (let i = 0; i < 5; i++) first.setMemTable(guest.ram);
  t.equal(others.filter((other) => other.isClosed()).length, 50);
  t.equal(guest.serveOnce(first), undefined, 'still');
  t.equal(stand.serveBystander(), undefined);
  for (const frontend of [first, ...others]) frontend.close();
  guest.close();
  await stand.settled(before);
  const busy = (): number => stand.codes(device).filter((code) => code === 'busy').length;
  t.ok(await eventually(() => busy() > 0), 'told');
  t.ok(busy() <= 20, `${busy()} lines: the log is not filled`);
});

const LARGE = 512 * MIB;
for (const mapped of [true, false]) {
  const how = mapped ? 'as guest memory' : 'with GET_FEATURES';
  t.test(`H16: 512 MiB ${how}, whose only other holder goes: freed, the others are served`, async (t) => {
    const before = stand.footprint();
    await stand.checked(t, async (device) => {
      const frontend = device.connect();
      const ram = new GuestRam([{ guestPhysAddr: 0n, bytes: LARGE }]);
      ram.view(0n, LARGE).fill(1);
      if (mapped) {
        frontend.negotiate();
        frontend.setMemTable(ram);
        t.equal(stand.footprint().mappings, before.mappings + 1);
      } else {
        frontend.sendRequest(FrontendRequest.GetFeatures, NO_PAYLOAD, { fds: ram.fds });
      }
      ram.close();
      frontend.close();
      const served: (string | undefined)[] = [];
      const isFreed = (): boolean => {
        served.push(stand.serveBystander());
        const { files, mappings } = stand.footprint();
        return mappings <= before.mappings && files.length <= before.files.length;
      };
      await waitUntil(isFreed, 10_000, () => `expected no more mappings, got ${stand.daemon.log}`);
      t.strictSame(new Set(served), new Set([undefined]), 'served all along');
    });
  });
}
