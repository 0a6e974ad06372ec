// The service under a real systemd: the first connection starts it, it says when it is ready and how it is, and reloads, restarts
// and stops as its unit says.
import { readFileSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import t from 'tap';
import { ReadingGuest } from '../support/reading-guest.js';
import type { SystemdContainer } from '../support/systemd/container.js';
import { CONFIG, faultsOf, installedContainer } from '../support/systemd/installed.js';

const SERVICE = 'vhost-rngd.service';
const DEVICE_UNIT = 'vhost-rngd-device@rng.socket';
const RNG_SOCKET = '/run/vhost-rngd/rng.sock';
const CONTROL_SOCKET = '/run/vhost-rngd/control.sock';
/** syslog's priorities. Source: sd-daemon(3). */
const INFO = '6';
const WARNING = 4;

/** Connection, a memory region, kick, call, err, and the replies and the record of the front-end. */
const FDS_OF_A_GUEST = 7;

/** A record as journalctl's JSON has it. */
type JournalRecord = Readonly<Record<string, unknown>>;

const container = await installedContainer(t);
if (container !== undefined) {
  await testStart(container);
  await testJournal(container);
  await testReload(container);
  await testStops(container);
}

async function testStart(container: SystemdContainer): Promise<void> {
  await t.test('systemd finds nothing wrong with the units', async (t) => {
    const { status, stderr } = await container.run(
      'systemd-analyze',
      'verify',
      '--man=no',
      SERVICE,
      DEVICE_UNIT,
      'vhost-rngd@web1.service',
    );
    t.equal(status, 0);
    t.same(faultsOf(stderr), []);
  });

  await t.test('enabling the socket opens both sockets, and starts no process', async (t) => {
    await container.outputOf('systemctl', 'enable', '--now', 'vhost-rngd.socket');
    t.equal(await container.property('vhost-rngd.socket', 'ActiveState'), 'active');
    t.equal(await container.property(DEVICE_UNIT, 'ActiveState'), 'active');
    t.equal(await container.property(DEVICE_UNIT, 'UnitFileState'), 'enabled');
    t.equal(await container.property(SERVICE, 'ActiveState'), 'inactive');
    for (const path of [RNG_SOCKET, CONTROL_SOCKET])
      t.equal(statSync(container.path(path)).mode & 0o777, 0o660, path);
  });

  await t.test('a guest that connects starts the service, and is served', async (t) => {
    const guest = new ReadingGuest(t, container.path(RNG_SOCKET));
    await guest.readTotal(4096);
    await container.untilProperty(SERVICE, 'ActiveState', (state) => state === 'active');
    await container.untilProperty(SERVICE, 'StatusText', (text) =>
      /^1 guest on 1 device, .*healthy/.test(text),
    );
    const status = await container.outputOf('vhost-rngctl', 'status', '--json');
    const { devices } = JSON.parse(status) as { devices: { name: string; bytes: number }[] };
    t.match(devices, [{ name: 'rng' }], 'the device is named after its unit');
    t.ok((devices[0]?.bytes ?? 0) >= 4096);
  });
}

async function testJournal(container: SystemdContainer): Promise<void> {
  await t.test('the journal has the records with their priority', async (t) => {
    const lines = await container.outputOf('journalctl', '--output=json', `_SYSTEMD_UNIT=${SERVICE}`);
    const records = lines
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as JournalRecord);
    const texts = records.map(({ MESSAGE }) => String(MESSAGE));
    t.match(
      records.find(({ MESSAGE }) => String(MESSAGE).includes(`listening on ${RNG_SOCKET}`)),
      { PRIORITY: INFO, SYSLOG_IDENTIFIER: 'vhost-rngd', _TRANSPORT: 'stdout' },
    );
    t.notOk(
      texts.some((text) => /^<\d>/.test(text)),
      'the prefix is not part of the text',
    );
    const warnings = records.filter(({ PRIORITY }) => Number(PRIORITY) <= WARNING);
    t.strictSame(
      warnings.map(({ MESSAGE }) => MESSAGE),
      [],
      'nothing to warn of in this sandbox: entropy is locked in RAM, and no call is missed',
    );
  });
}

async function testReload(container: SystemdContainer): Promise<void> {
  // Between subtests nothing may be waited for, or tap takes the file for done.
  const text = readFileSync(container.path(CONFIG), 'utf8');
  const device = `[[device]]\nname = "rng"\nsocket-path = "${RNG_SOCKET}"\nperiod = 1000\n`;

  /** Reloads, and waits until the journal says how it went: the signal is sent when systemctl returns, not heard yet. */
  async function reload(outcome: RegExp): Promise<void> {
    const before = await container.timesInJournal(SERVICE, outcome);
    await container.outputOf('systemctl', 'reload', SERVICE);
    await container.untilInJournal(SERVICE, outcome, before);
    await container.untilProperty(SERVICE, 'ActiveState', (state) => state === 'active');
  }

  async function limit(): Promise<unknown> {
    const answer = await container.outputOf('vhost-rngctl', 'device', 'rng', '--json');
    return (JSON.parse(answer) as { limit: unknown }).limit;
  }

  await t.test('reload puts a changed configuration in force in the same process', async (t) => {
    await container.write(CONFIG, `${text}\n${device}max-bytes = 8192\n`);
    await container.outputOf('systemctl', 'restart', SERVICE);
    t.match(await limit(), { maxBytes: 8192, periodMs: 1000 }, 'of the table with the path of the socket');
    const pid = await container.property(SERVICE, 'MainPID');
    await container.write(CONFIG, `${text}\n${device}max-bytes = 4096\n`);
    await reload(/\[reload\]/);
    t.match(await limit(), { maxBytes: 4096, periodMs: 1000 });
    t.equal(await container.property(SERVICE, 'MainPID'), pid);
  });

  await t.test('reload of a configuration that is wrong changes nothing, and says so', async (t) => {
    await container.write(CONFIG, `max-bytes = "much"\n${text}`);
    await reload(/config\.toml:1:.*max-bytes.*\[reload_failed\]/);
    t.match(await limit(), { maxBytes: 4096, periodMs: 1000 });
    t.equal(await container.property(SERVICE, 'ActiveState'), 'active');
    await container.write(CONFIG, text);
    await container.outputOf('systemctl', 'restart', SERVICE);
  });
}

async function testStops(container: SystemdContainer): Promise<void> {
  await t.test('restart and SIGKILL: a guest that reads goes on with its connection', async (t) => {
    const guest = new ReadingGuest(t, container.path(RNG_SOCKET));
    await guest.readTotal(4096);
    const end = [
      ['systemctl', 'restart', SERVICE],
      ['systemctl', 'kill', '--kill-whom=main', '--signal=KILL', SERVICE],
    ] as const;
    for (const [program, ...args] of end) {
      const before = await container.property(SERVICE, 'MainPID');
      await container.outputOf(program, ...args);
      await container.untilProperty(SERVICE, 'MainPID', (pid) => pid !== before && pid !== '0');
      const count = guest.count;
      await guest.readTotal(count + 4096);
      t.ok(guest.vm.frontend.answers(), args.join(' '));
    }
  });

  await t.test('systemd keeps what a guest has open, until it leaves', async (t) => {
    const kept = (): Promise<string> => container.property(SERVICE, 'NFileDescriptorStore');
    await container.untilProperty(SERVICE, 'StatusText', (text) => text.startsWith('0 guests'));
    const before = await kept();
    const guest = new ReadingGuest(t, container.path(RNG_SOCKET));
    await guest.readTotal(4096);
    const withGuest = Number(await kept()) - Number(before);
    t.equal(withGuest, FDS_OF_A_GUEST, `${before} before`);
    guest.vm.close();
    await container.untilProperty(SERVICE, 'NFileDescriptorStore', (count) => count === before);
  });

  await t.test('a guest whose memory can be shrunk is served by guarded access', async (t) => {
    const guest = new ReadingGuest(t, container.path(RNG_SOCKET), { sealed: false });
    await guest.readTotal(4096);
    const status = await container.outputOf('vhost-rngctl', 'status', '--json');
    t.match(JSON.parse(status), { devices: [{ frontEnds: [{ memory: { sealed: false } }] }] });
  });

  await t.test('stop of the control socket stops the service, which could not have it back', async (t) => {
    await container.outputOf('systemctl', 'stop', 'vhost-rngd.socket');
    for (const unit of [SERVICE, DEVICE_UNIT])
      await container.untilProperty(unit, 'ActiveState', (state) => state === 'inactive');
    await container.outputOf('systemctl', 'start', 'vhost-rngd.socket', SERVICE);
    t.equal(await container.property(DEVICE_UNIT, 'ActiveState'), 'active');
    await container.outputOf('vhost-rngctl', 'status');
  });

  await t.test(
    'a device that is enabled comes with a restart of the control socket, while guests read',
    async (t) => {
      const guest = new ReadingGuest(t, container.path(RNG_SOCKET));
      await guest.readTotal(4096);
      await container.outputOf('systemctl', 'enable', 'vhost-rngd-device@web9.socket');
      await container.outputOf('systemctl', 'restart', 'vhost-rngd.socket');
      await new ReadingGuest(t, container.path('/run/vhost-rngd/web9.sock')).readTotal(4096);
      await guest.readTotal(guest.count + 4096);
      t.ok(guest.vm.frontend.answers(), 'over the same connection');
    },
  );

  await t.test('stop: the sockets stay, and the next guest starts the service again', async (t) => {
    await container.outputOf('systemctl', 'stop', SERVICE);
    t.equal(await container.property(SERVICE, 'Result'), 'success');
    for (const path of [RNG_SOCKET, CONTROL_SOCKET]) t.ok(statSync(container.path(path)).isSocket(), path);
    const guest = new ReadingGuest(t, container.path(RNG_SOCKET));
    await guest.readTotal(4096);
    await container.untilProperty(SERVICE, 'ActiveState', (state) => state === 'active');
  });

  await t.test('a configuration that is wrong is not started again and again', async (t) => {
    const text = await readFile(container.path(CONFIG), 'utf8');
    await container.outputOf('systemctl', 'stop', 'vhost-rngd.socket');
    await container.write(CONFIG, `max-bytes = "much"\n${text}`);
    t.not((await container.run('systemctl', 'start', SERVICE)).status, 0);
    await container.untilProperty(SERVICE, 'SubState', (state) => state === 'failed');
    t.equal(await container.property(SERVICE, 'ExecMainStatus'), '78');
    t.equal(await container.property(SERVICE, 'NRestarts'), '0');
    await container.write(CONFIG, text);
  });
}
