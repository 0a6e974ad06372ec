// vhost-user, "Backend program conventions", and design.md §1: who may connect, and how often. Many connections one after
// the other, a second one at the same time, and inherited sockets (`--fd`), against the real daemon.
//
// Left out: systemd's socket activation, which this version does not have.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { encodeRequest } from '../../protocol/reply.js';
import { FrontendRequest } from '../../protocol/request.js';
import { closeFd, asFd, type Fd } from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import { bindTo, openSocket } from '../../shared-memory/unix-socket.js';
import { openSocketPair } from '../support/fd-kinds.js';
import { Frontend } from '../support/frontend.js';
import { waitUntil } from '../support/guest/deadline.js';
import { OutputLog } from '../support/guest/output-log.js';
import { footprintOf, Stand } from './stand.js';
import { SyntheticGuest } from './synthetic-guest.js';

const MAIN = fileURLToPath(new URL('../../daemon/main.cjs', import.meta.url));
const TIMEOUT_MS = 10_000;

const stand = await Stand.start({ devices: 8 });
t.teardown(() => stand.stop());

t.test('300 connections one after the other on one socket: each is served, nothing is left', async (t) => {
  await stand.checked(t, (device) => {
    const guest = new SyntheticGuest();
    for (let i = 0; i < 300; i++) {
      const frontend = device.connect();
      frontend.setUp(guest.ram, guest.ring);
      const failed = guest.serveOnce(frontend);
      if (failed !== undefined) t.fail(`connection ${i}: ${failed}`);
      frontend.close();
    }
    guest.close();
  });
});

t.test('F4: 500 front-ends that go between SET_MEM_TABLE and SET_VRING_KICK leave nothing', async (t) => {
  await stand.checked(t, (device) => {
    const guest = new SyntheticGuest();
    for (let i = 0; i < 500; i++) {
      const frontend = device.connect();
      frontend.negotiate();
      frontend.setMemTable(guest.ram);
      frontend.close();
    }
    guest.close();
  });
});

t.test(
  'a second front-end at the same time is closed with a log line, and served once the first is gone',
  async (t) => {
    const first = new SyntheticGuest();
    const second = new SyntheticGuest();
    const codes = await stand.checked(t, (device) => {
      const served = device.connect();
      served.setUp(first.ram, first.ring);
      t.equal(first.serveOnce(served), undefined);
      const refused = Frontend.connect(device.path);
      t.ok(refused.isClosed(), 'the second is closed');
      refused.close();
      t.equal(first.serveOnce(served), undefined, 'the first does not notice');
      served.close();
      // Connected at once: that the first has gone is seen without waiting for its end to be handled.
      const next = device.connect();
      next.setUp(second.ram, second.ring);
      t.equal(second.serveOnce(next), undefined, 'served once the first is gone');
    });
    t.strictSame(codes, ['busy']);
    t.match(
      stand.daemon.log,
      new RegExp(`second front-end \\(pid ${process.pid}\\)`),
      'the log names its process',
    );
    first.close();
    second.close();
  },
);

t.test('a front-end that leaves 3,000 messages behind does not keep the next one out', async (t) => {
  const codes = await stand.checked(t, (device) => {
    const message = encodeRequest(FrontendRequest.SetFeatures, new Uint8Array(8), { needReply: false });
    const batch = Buffer.concat(Array.from({ length: 3000 }, () => message));
    for (let i = 0; i < 5; i++) {
      const leaving = device.connect();
      t.equal(leaving.sendAll(batch), batch.length);
      leaving.close();
      const next = device.connect();
      t.ok(next.answers(), 'the next one is served');
      next.close();
    }
  });
  t.strictSame(codes, []);
});

t.test('50 second front-ends: at most 20 log lines in 10 s', async (t) => {
  const device = stand.nextDevice();
  const before = stand.footprint();
  const served = device.connect();
  t.ok(served.answers());
  for (let i = 0; i < 50; i++) {
    const refused = Frontend.connect(device.path);
    t.ok(refused.isClosed());
    refused.close();
  }
  t.ok(served.answers());
  served.close();
  await stand.settled(before);
  await stand.daemon.waitForLog(new RegExp(`${device.name}: .*\\[disconnected\\]`), TIMEOUT_MS);
  t.equal(stand.codes(device).filter((code) => code === 'busy').length, 20);
});

/** A daemon that was started with an inherited socket as fd 3. */
interface Inheritor {
  readonly pid: number;
  readonly log: OutputLog;
  readonly signal: (name: NodeJS.Signals) => void;
  /** Its exit code. */
  readonly exited: Promise<unknown>;
}

/** Starts the daemon with `fd` (adopted) as its fd 3. */
function startWith(t: Test, fd: Fd): Inheritor {
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', process.execPath, MAIN, '--fd=3'], {
    stdio: ['ignore', 'ignore', 'pipe', fd],
  });
  closeFd(fd);
  const log = new OutputLog('daemon log');
  child.stderr?.setEncoding('utf8').on('data', (text: string) => log.append(text));
  t.teardown(() => child.kill('SIGKILL'));
  const exited = once(child, 'exit').then(([code]: unknown[]) => code);
  return { pid: child.pid ?? -1, log, signal: (name) => void child.kill(name), exited };
}

t.test(
  '--fd with a connected socket: served, and exit 0 when the peer closes',
  { timeout: 20_000 },
  async (t) => {
    const [ours, theirs] = openSocketPair();
    const daemon = startWith(t, theirs);
    await daemon.log.waitFor(/\[listening\]/, TIMEOUT_MS);
    const guest = new SyntheticGuest();
    const frontend = Frontend.over(ours);
    frontend.setUp(guest.ram, guest.ring);
    t.equal(guest.serveOnce(frontend), undefined);
    frontend.close();
    t.equal(await daemon.exited, 0);
    t.match(daemon.log.text, /\[disconnected\]/);
    guest.close();
  },
);

t.test(
  '--fd with a connected socket: what was sent before the daemon began is served',
  { timeout: 20_000 },
  async (t) => {
    const [ours, theirs] = openSocketPair();
    const guest = new SyntheticGuest();
    const frontend = Frontend.over(ours);
    for (let i = 0; i < 100; i++) frontend.send({ request: 1 });
    const daemon = startWith(t, theirs);
    for (let i = 0; i < 100; i++) t.equal(frontend.receive(TIMEOUT_MS)?.request, 1);
    frontend.setUp(guest.ram, guest.ring);
    t.equal(guest.serveOnce(frontend), undefined);
    daemon.signal('SIGTERM');
    t.equal(await daemon.exited, 0, 'SIGTERM ends it as well');
    frontend.close();
    guest.close();
  },
);

t.test(
  '--fd with a listening socket: serves one front-end after the other, ends by SIGTERM',
  { timeout: 20_000 },
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'vhost-rngd-conformance-'));
    t.teardown(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'inherited.sock');
    const listener = asFd(openSocket({ nonBlocking: false }));
    t.equal(bindTo(listener, path), 0);
    t.equal(libc.listen(listener, 1), 0);
    const daemon = startWith(t, listener);
    await daemon.log.waitFor(/listening on fd 3.*\[listening\]/, TIMEOUT_MS);
    const held = footprintOf(daemon.pid);
    for (let i = 0; i < 5; i++) {
      const guest = new SyntheticGuest();
      const frontend = Frontend.connect(path);
      frontend.setUp(guest.ram, guest.ring);
      t.equal(guest.serveOnce(frontend), undefined);
      frontend.close();
      guest.close();
    }
    const probe = Frontend.connect(path);
    t.ok(probe.answers());
    const files = (): number => footprintOf(daemon.pid).files.length;
    await waitUntil(
      () => files() === held.files.length + 1,
      TIMEOUT_MS,
      () => `expected only the connection to be held, got ${files() - held.files.length} files more`,
    );
    daemon.signal('SIGTERM');
    t.equal(await daemon.exited, 0);
    t.ok(probe.isClosed());
    probe.close();
  },
);
