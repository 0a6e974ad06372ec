// A real guest under a real systemd: it reads on over crashes and restarts of the daemon, also of one that is just starting, and
// QEMU's own messages at such moments get their answer: its start, the guest's reset, its end while no daemon is there.
//
// `npm run bench:restart` does the same hundreds of times, and measures.
import t from 'tap';
import { bootGuest, type Guest } from '../support/guest/guest.js';
import { endToEnd } from '../support/guest/end-to-end.js';
import type { SystemdContainer } from '../support/systemd/container.js';
import { installedContainer } from '../support/systemd/installed.js';
import { interrupt } from '../support/systemd/interruptions.js';

const SERVICE = 'vhost-rngd.service';
const RNG_SOCKET = '/run/vhost-rngd/rng.sock';
const READ_BYTES = 4096;

await t.test('a guest whose daemon comes and goes', (t) =>
  endToEnd(t, async (scene) => {
    const container = await installedContainer(t);
    if (container === undefined) return;
    await container.outputOf('systemctl', 'enable', '--now', 'vhost-rngd.socket');
    await container.outputOf('systemctl', 'start', 'vhost-rngd-device@second.socket');
    const guest = await scene.bootGuest(container.path(RNG_SOCKET));

    await t.test('the guest is reset just after the daemon was killed, and just before', async (t) => {
      await kill(container);
      await guest.reset();
      t.equal((await guest.readHwrng(READ_BYTES)).length, READ_BYTES);
      const resetting = guest.reset();
      await kill(container);
      await resetting;
      t.equal((await guest.readHwrng(READ_BYTES)).length, READ_BYTES);
    });

    await t.test('it is stopped and goes on while the daemon is killed', async (t) => {
      for (let i = 0; i < 3; i++) {
        const stopping = guest.stop();
        await kill(container);
        await stopping;
        await guest.cont();
        t.equal((await guest.readHwrng(READ_BYTES)).length, READ_BYTES);
      }
    });

    await t.test('a VMM starts while the daemon is killed', async (t) => {
      const booting = bootGuest({
        devices: [{ kind: 'vhost-user', socketPath: container.path('/run/vhost-rngd/second.sock') }],
      });
      await kill(container);
      const second: Guest = await booting;
      t.teardown(() => second.kill());
      t.equal((await second.readHwrng(READ_BYTES)).length, READ_BYTES);
      t.equal((await guest.readHwrng(READ_BYTES)).length, READ_BYTES);

      const ending = second.powerOff();
      await kill(container);
      await ending;
      await container.untilProperty(SERVICE, 'StatusText', (text) => text.startsWith('1 guest on'));
    });

    await t.test('it reads without pause over crashes and restarts', async (t) => {
      const wanted = ['SIGKILL', 'restart', 'SIGKILL twice', 'SIGKILL', 'restart', 'SIGKILL twice'] as const;
      const { repeatedBlocks, pausesMs, bytes } = await interrupt(guest, container, wanted);
      t.equal(repeatedBlocks, 0);
      t.equal([...pausesMs.values()].flat().length, wanted.length, 'it read on each time');
      t.ok(bytes >= READ_BYTES * wanted.length);
    });
  }),
);

/** Kills the daemon, whether it has just started or not. */
async function kill(container: SystemdContainer): Promise<void> {
  process.kill(await container.mainPid(SERVICE), 'SIGKILL');
}
