// A process for each guest, under the oldest systemd that the units are made for and under that of Debian 13: how it starts, who may ask
// on its control socket, which names are refused, and that systemd gives up what it cannot start itself.
import { readFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import t, { type Test } from 'tap';
import { ReadingGuest } from '../support/reading-guest.js';
import type { SystemdContainer } from '../support/systemd/container.js';
import { installedContainer } from '../support/systemd/installed.js';
import { BOOKWORM, TRIXIE } from '../support/systemd/root.js';

const FOLDER = '/run/vhost-rngd-vm';
/** StartLimitBurst= of the unit. */
const MOST_STARTS = 100;

for (const release of [BOOKWORM, TRIXIE])
  await t.test(`under the systemd of ${release.suite}`, async (t) => {
    const container = await installedContainer(t, [], release);
    if (container === undefined) return;
    await testStart(t, container);
    await testRestart(t, container);
    await testNames(t, container);
    await testBrake(t, container);
    await testStop(t, container);
  });

async function testStart(t: Test, container: SystemdContainer): Promise<void> {
  await t.test(
    'one command opens both sockets, each process has a user and options of its own',
    async (t) => {
      await container.write(
        '/etc/vhost-rngd/web1.env',
        'VHOST_RNGD_OPTIONS=--max-bytes=8192 --period=60000\n',
      );
      const users: string[] = [];
      for (const name of ['web1', 'web2']) {
        await container.outputOf('systemctl', 'enable', '--now', `vhost-rngd@${name}.socket`);
        t.equal(await container.property(`vhost-rngd@${name}.service`, 'ActiveState'), 'inactive');
        for (const end of ['sock', 'control'])
          t.ok(existsSync(container.path(`${FOLDER}/${name}.${end}`)), `${name}.${end} is there at once`);
        const guest = new ReadingGuest(t, container.path(`${FOLDER}/${name}.sock`));
        await guest.readTotal(4096);
        const pid = await container.mainPid(`vhost-rngd@${name}.service`);
        users.push(/^Uid:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '');
        const answer = await container.outputOf('vhost-rngctl', control(name), 'device', name, '--json');
        const wanted = name === 'web1' ? { maxBytes: 8192, periodMs: 60_000 } : null;
        t.match((JSON.parse(answer) as { limit: unknown }).limit, wanted, `limit of ${name}`);
      }
      t.equal(new Set([...users, '0']).size, 3, `users ${users.join()}`);
      t.equal(await container.timesInJournal('vhost-rngd@web2.service', /unset environment variable/), 0);
    },
  );

  await t.test('members of the group may look and change nothing, others may not even look', async (t) => {
    await container.outputOf('useradd', '--groups=vhost-rngd', 'member');
    await container.outputOf('useradd', 'other');
    const ask = async (user: string, ...args: string[]): Promise<number | undefined> =>
      (await container.run('runuser', '-u', user, '--', 'vhost-rngctl', control('web1'), ...args)).status;
    t.equal(await ask('member', 'status'), 0);
    t.not(await ask('member', 'set', 'web1', '--max-bytes=1'), 0);
    t.not(await ask('other', 'status'), 0);
  });
}

async function testRestart(t: Test, container: SystemdContainer): Promise<void> {
  await t.test('a guest reads on over restarts, also of a service that is started by hand', async (t) => {
    const service = 'vhost-rngd@byhand.service';
    await container.outputOf('systemctl', 'start', service);
    const guest = new ReadingGuest(t, container.path(`${FOLDER}/byhand.sock`));
    await guest.readTotal(4096);
    for (const how of ['restart', 'kill --kill-whom=main --signal=KILL']) {
      const before = await container.property(service, 'MainPID');
      await container.outputOf('systemctl', ...how.split(' '), service);
      await container.untilProperty(service, 'MainPID', (pid) => pid !== before && pid !== '0');
      await guest.readTotal(guest.count + 4096);
      t.ok(guest.vm.frontend.answers(), how);
    }
    t.match(JSON.parse(await container.outputOf('vhost-rngctl', control('byhand'), 'status', '--json')), {
      devices: [{ name: 'byhand', connections: 1 }],
    });
  });
}

async function testNames(t: Test, container: SystemdContainer): Promise<void> {
  await t.test('a name that no user can have is refused at once, and says what is allowed', async (t) => {
    for (const name of ['a.b', 'a'.repeat(27), 'a\\x20b', 'control']) {
      const unit = `vhost-rngd@${name}.socket`;
      t.not((await container.run('systemctl', 'start', unit)).status, 0, name);
      t.equal(await container.timesInJournal(unit, /expected a name of letters, digits, - and _/), 1, name);
      const service = `vhost-rngd@${name}.service`;
      t.not((await container.run('systemctl', 'start', service)).status, 0);
      t.equal(await container.property(service, 'ActiveState'), 'inactive', 'not tried');
      const control = `vhost-rngd-control@${name}.socket`;
      await container.untilProperty(control, 'ActiveState', (state) => state === 'inactive');
    }
    await container.outputOf('systemctl', 'start', `vhost-rngd@${'a'.repeat(26)}.service`);
    t.not((await container.run('systemctl', 'start', 'vhost-rngd-device@control.socket')).status, 0);
  });
}

async function testBrake(t: Test, container: SystemdContainer): Promise<void> {
  await t.test('what systemd cannot start is not tried for ever', async (t) => {
    const service = 'vhost-rngd@broken.service';
    await container.dropIn(service, ['User=rngd.broken']);
    await container.run('systemctl', 'start', service);
    await container.untilProperty(service, 'ActiveState', (state) => state === 'failed');
    const restarts = Number(await container.property(service, 'NRestarts'));
    t.ok(restarts <= MOST_STARTS, `${restarts} restarts`);
  });
}

async function testStop(t: Test, container: SystemdContainer): Promise<void> {
  await t.test('disabling the socket ends all that belongs to it', async (t) => {
    await container.outputOf('systemctl', 'disable', '--now', 'vhost-rngd@web1.socket');
    for (const unit of ['vhost-rngd@web1.service', 'vhost-rngd-control@web1.socket'])
      await container.untilProperty(unit, 'ActiveState', (state) => state === 'inactive');
    for (const file of ['web1.sock', 'web1.control'])
      t.notOk(existsSync(container.path(`${FOLDER}/${file}`)), file);
  });
}

function control(name: string): string {
  return `--control-socket=${FOLDER}/${name}.control`;
}
