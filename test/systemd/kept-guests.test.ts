// Guests while the service is stopped or has failed, under the systemd of Debian 13, which keeps what they have open: they wait, and go on with
// the next start, until somebody says otherwise. Older ones drop it (activation.test.ts).
import { readFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { ReadingGuest } from '../support/reading-guest.js';
import type { SystemdContainer } from '../support/systemd/container.js';
import { CONFIG, installedContainer } from '../support/systemd/installed.js';
import { TRIXIE } from '../support/systemd/root.js';

const SERVICE = 'vhost-rngd.service';
const RNG_SOCKET = '/run/vhost-rngd/rng.sock';

const container = await installedContainer(t, [], TRIXIE);
if (container !== undefined) await run(container);

async function run(container: SystemdContainer): Promise<void> {
  await container.outputOf('systemctl', 'enable', '--now', 'vhost-rngd.socket');
  const guest = new ReadingGuest(t, container.path(RNG_SOCKET));
  await guest.readTotal(4096);

  /** The guest is given bytes again, over the same connection. */
  async function readsOn(t: Test): Promise<void> {
    await guest.readTotal(guest.count + 4096);
    t.ok(guest.vm.frontend.answers(), 'over the same connection');
  }

  await t.test('a restart with a wrong configuration: it waits until that is right', async (t) => {
    const text = await readFile(container.path(CONFIG), 'utf8');
    await container.write(CONFIG, `max-bytes = "much"\n${text}`);
    t.not((await container.run('systemctl', 'restart', SERVICE)).status, 0);
    t.equal(await container.property(SERVICE, 'ActiveState'), 'failed');
    t.equal(await container.property(SERVICE, 'ExecMainStatus'), '78');
    await container.write(CONFIG, text);
    await container.outputOf('systemctl', 'start', SERVICE);
    await readsOn(t);
  });

  await t.test('a service that is stopped, with its sockets or without', async (t) => {
    await container.outputOf('systemctl', 'stop', SERVICE);
    await container.outputOf('systemctl', 'start', SERVICE);
    await readsOn(t);
    await container.outputOf('systemctl', 'stop', 'vhost-rngd.socket');
    t.equal(await container.property(SERVICE, 'ActiveState'), 'inactive');
    await container.outputOf('systemctl', 'start', 'vhost-rngd.socket', SERVICE);
    await readsOn(t);
  });

  await t.test('a guest that leaves meanwhile is let go of at the next start', async (t) => {
    const kept = async (): Promise<number> =>
      Number(await container.property(SERVICE, 'NFileDescriptorStore'));
    const before = await kept();
    await container.outputOf('systemctl', 'enable', 'vhost-rngd-device@second.socket');
    await container.outputOf('systemctl', 'restart', 'vhost-rngd.socket');
    const second = new ReadingGuest(t, container.path('/run/vhost-rngd/second.sock'));
    await second.readTotal(4096);
    await container.outputOf('systemctl', 'stop', SERVICE);
    second.vm.close();
    t.ok((await kept()) > before + 1, 'its memory too');
    await container.outputOf('systemctl', 'start', SERVICE);
    await container.untilProperty(SERVICE, 'NFileDescriptorStore', (count) => Number(count) === before + 1);
    await readsOn(t);
  });

  await t.test('a service that systemd has given up', async (t) => {
    await container.dropIn(SERVICE, ['DynamicUser=yes', 'User=rngd.nobody']);
    await container.run('systemctl', 'restart', SERVICE);
    await container.untilProperty(SERVICE, 'ActiveState', (state) => state === 'failed');
    await container.untilProperty('vhost-rngd.socket', 'ActiveState', (state) => state === 'failed');
    await container.outputOf('rm', `/run/systemd/system/${SERVICE}.d/test.conf`);
    await container.outputOf('systemctl', 'daemon-reload');
    await container.outputOf('systemctl', 'reset-failed', 'vhost-rngd*');
    await container.outputOf('systemctl', 'start', 'vhost-rngd.socket', SERVICE);
    await readsOn(t);
  });

  await t.test('a clean-up disconnects it, after a stop or a failure', async (t) => {
    await container.dropIn(SERVICE, ['ExecStart=', 'ExecStart=/bin/false', 'Restart=no']);
    await container.run('systemctl', 'restart', SERVICE);
    t.equal(await container.property(SERVICE, 'ActiveState'), 'failed');
    await container.outputOf('systemctl', 'reset-failed', SERVICE);
    t.not(await container.property(SERVICE, 'NFileDescriptorStore'), '0');
    await container.outputOf('systemctl', 'clean', '--what=fdstore', SERVICE);
    t.equal(await container.property(SERVICE, 'NFileDescriptorStore'), '0');
    t.notOk(guest.vm.frontend.answers());
  });
}
