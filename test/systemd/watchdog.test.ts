// The watchdog of a real systemd: a daemon of which one thread hangs, be it that of the control plane or that of the data plane, is
// killed, and the next one serves the guest.
import { readlinkSync } from 'node:fs';
import t from 'tap';
import { ReadingGuest } from '../support/reading-guest.js';
import { attachStrace, dataPlaneThread } from '../support/slow-thread.js';
import type { SystemdContainer } from '../support/systemd/container.js';
import { installedContainer } from '../support/systemd/installed.js';

const SERVICE = 'vhost-rngd.service';
const RNG_SOCKET = '/run/vhost-rngd/rng.sock';
/** Shorter than in the unit, so that the test is. */
const WATCHDOG_S = 2;
const WATCHDOG_LINE = /Watchdog timeout/;
/** Longer than the test takes. */
const HANG_US = 120_000_000;

const container = await installedContainer(t);
if (container !== undefined) await run(container);

async function run(container: SystemdContainer): Promise<void> {
  await container.dropIn(SERVICE, [`WatchdogSec=${WATCHDOG_S}s`]);
  await container.outputOf('systemctl', 'start', 'vhost-rngd.socket');
  const guest = new ReadingGuest(t, container.path(RNG_SOCKET));
  await guest.readTotal(4096);
  await container.untilProperty(SERVICE, 'SubState', (state) => state === 'running');

  await t.test('a daemon that turns is left alone', async (t) => {
    const pid = await container.property(SERVICE, 'MainPID');
    const since = performance.now();
    await guest.readUntil(() => performance.now() - since > 2500 * WATCHDOG_S, 'two and a half time-outs');
    t.equal(await container.property(SERVICE, 'MainPID'), pid);
    t.equal(await container.property(SERVICE, 'NRestarts'), '0');
  });

  await t.test('a stopped process is killed, and the guest goes on', async (t) => {
    const pid = await container.property(SERVICE, 'MainPID');
    await container.outputOf('systemctl', 'kill', '--kill-whom=main', '--signal=STOP', SERVICE);
    await recovered(t.name, pid);
    t.equal(await container.timesInJournal(SERVICE, WATCHDOG_LINE), 1);
    t.ok(guest.vm.frontend.answers(), 'over the same connection');
  });

  for (const [plane, find] of [
    ['data plane', dataPlaneThread],
    ['control plane', (pid: number) => Promise.resolve<number | undefined>(pid)],
  ] as const) {
    await t.test(`a ${plane} that hangs, while the other turns, gets the process killed`, async (t) => {
      const pid = await container.mainPid(SERVICE);
      const inside = await container.property(SERVICE, 'MainPID');
      const before = await container.timesInJournal(SERVICE, WATCHDOG_LINE);
      const thread = await find(pid);
      const strace =
        thread === undefined
          ? undefined
          : await attachStrace(t, thread, ['-e', `inject=epoll_wait,epoll_pwait:delay_enter=${HANG_US}`]);
      if (strace === undefined) {
        t.fail(`expected a thread that strace can hold, of ${readlinkSync(`/proc/${pid}/exe`)}`);
        return;
      }
      await container.untilInJournal(SERVICE, WATCHDOG_LINE, before);
      // A thread that strace holds cannot end either.
      await strace.detach('SIGKILL');
      await recovered(plane, inside);
      t.ok(guest.vm.frontend.answers(), 'over the same connection');
    });
  }

  /** Waits until another process is ready, and serves the guest. */
  async function recovered(what: string, pid: string): Promise<void> {
    await container.untilProperty(SERVICE, 'MainPID', (now) => now !== pid && now !== '0');
    await container.untilProperty(SERVICE, 'SubState', (state) => state === 'running');
    const { count } = guest;
    await guest.readUntil(() => guest.count > count + 4096, `bytes after: ${what}`);
  }
}
