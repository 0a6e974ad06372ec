// `vhost-rngctl doctor` and other words to an operator under a real systemd: what a host that is in order is told, how the service
// stands when it does not run, and what the sandbox hides.
import t from 'tap';
import * as v from 'valibot';
import type { SystemdContainer } from '../support/systemd/container.js';
import { CONFIG, installedContainer, unitPath } from '../support/systemd/installed.js';
import { ReadingGuest } from '../support/reading-guest.js';

const SERVICE = 'vhost-rngd.service';
const RNG_UNIT = 'vhost-rngd-device@rng.socket';

const Report = v.object({
  checks: v.array(
    v.object({ name: v.string(), verdict: v.string(), found: v.string(), fix: v.nullable(v.string()) }),
  ),
});
type Check = v.InferOutput<typeof Report>['checks'][number];

/** Where the package puts it. */
const DROP_IN = '/usr/share/doc/vhost-rngd/examples/egd-over-tcp.conf';

const container = await installedContainer(t, [[unitPath('egd-over-tcp.conf'), DROP_IN]]);
if (container !== undefined) await run(container);

async function doctor(container: SystemdContainer, ...args: readonly string[]): Promise<readonly Check[]> {
  const { stdout } = await container.run('vhost-rngctl', ...args, '--json', 'doctor');
  return v.parse(Report, JSON.parse(stdout)).checks;
}

/** What is wrong. */
function flaws(checks: readonly Check[]): readonly string[] {
  return checks.filter(({ verdict }) => verdict === 'problem').map(({ name, found }) => `${name}: ${found}`);
}

function look(checks: readonly Check[], name: string): Check | undefined {
  return checks.find((check) => check.name === name);
}

async function run(container: SystemdContainer): Promise<void> {
  await t.test('before anything is enabled', async (t) => {
    const checks = await doctor(container);
    const start = 'sudo systemctl enable --now vhost-rngd.socket';
    t.match(look(checks, 'systemd'), { verdict: 'note', found: /is inactive/, fix: start });
    t.match(look(checks, 'control socket'), { verdict: 'problem', fix: start });
    const { status, stderr } = await container.run('vhost-rngctl', 'status');
    t.equal(status, 69);
    t.match(stderr, /got nothing there: systemctl start vhost-rngd\.socket, or say where/);
  });

  await t.test("the README's own sequence: doctor starts the service, and finds nothing wrong", async (t) => {
    await container.outputOf('systemctl', 'enable', '--now', 'vhost-rngd.socket');
    t.same(flaws(await doctor(container)), []);
    await container.outputOf('systemctl', 'stop', SERVICE);
    const { status, stdout } = await container.run('vhost-rngctl', 'health');
    t.match({ status, stdout }, { status: 0, stdout: /health: ok/ }, 'health waits as well');
  });

  await t.test('an instance: systemd makes its socket, in a folder of root', async (t) => {
    await container.outputOf('systemctl', 'start', 'vhost-rngd@web1.socket');
    const guest = new ReadingGuest(t, container.path('/run/vhost-rngd-vm/web1.sock'));
    await guest.readTotal(64);
    const checks = await doctor(container, '--control-socket=/run/vhost-rngd-vm/web1.control');
    t.same(flaws(checks), []);
    t.match(look(checks, 'systemd'), { verdict: 'ok', found: /vhost-rngd@web1\.service is active/ });
    t.match(look(checks, 'folder /run/vhost-rngd-vm'), { verdict: 'ok' });
    t.match(look(checks, 'open files'), { verdict: 'ok' });
  });

  await testSandbox(container);
  await testRemoval(container);
  await testStates(container);
}

async function testSandbox(container: SystemdContainer): Promise<void> {
  await t.test(
    'a device in a folder that the sandbox hides, or of which the service has its own',
    async (t) => {
      await container.outputOf('mkdir', '-p', '/home/someone', '/srv/vm');
      const cases = {
        '/home/someone/a.sock':
          /got \/home, which its sandbox hides .*: use \/run\/vhost-rngd \[socket_folder_hidden\]/,
        '/root/a.sock': /got \/root, which its sandbox hides/,
        '/run/user/0/a.sock': /got \/run\/user, which its sandbox hides/,
        '/tmp/a.sock': /got \/tmp, of which the service has its own \(PrivateTmp=\): use \/run\/vhost-rngd /,
        '/var/tmp/a.sock': /got \/var\/tmp, of which the service has its own/,
        '/srv/vm/a.sock': /EROFS: use \/run\/vhost-rngd \[socket_bind\]/,
      };
      for (const [path, says] of Object.entries(cases)) {
        const { status, stderr } = await container.run('vhost-rngctl', 'add', 'a', path);
        t.equal(status, 65, path);
        t.match(stderr, says, path);
      }
      await container.outputOf('vhost-rngctl', 'add', 'a', '/run/vhost-rngd/a.sock');
      await container.outputOf('vhost-rngctl', 'remove', 'a');
    },
  );

  await t.test('an EGD server that the sandbox keeps away: doctor opens the network to it', async (t) => {
    const server = 'egd:tcp:127.0.0.1:7777';
    await container.outputOf('vhost-rngctl', 'sources', 'add', server);
    await container.untilInJournal(SERVICE, /egd-over-tcp\.conf opens it/);
    const health = look(await doctor(container), 'health');
    t.match(health, { verdict: 'problem', found: /EAFNOSUPPORT; .*egd-over-tcp\.conf/ });
    await container.outputOf('sh', '-c', (health?.fix ?? '').replaceAll('sudo ', ''));
    await container.untilInJournal(SERVICE, /failed: ECONNREFUSED/);
    await container.outputOf('vhost-rngctl', 'sources', 'remove', server);
    await container.outputOf('rm', `/etc/systemd/system/${SERVICE}.d/egd-over-tcp.conf`);
    await container.outputOf('systemctl', 'daemon-reload');
    await container.outputOf('systemctl', 'restart', SERVICE);
  });
}

async function testRemoval(container: SystemdContainer): Promise<void> {
  await t.test('what a refused removal names makes the device go, and stay away', async (t) => {
    await container.outputOf('systemctl', 'stop', SERVICE);
    await container.outputOf('systemctl', 'enable', '--now', 'vhost-rngd-device@web2.socket');
    for (const name of ['web2', 'rng']) {
      const { status, stderr } = await container.run('vhost-rngctl', 'remove', name);
      t.equal(status, 65, stderr);
      const [, commands = ''] = /: (systemctl .*) \[device_activated\]/.exec(stderr) ?? [];
      await container.outputOf('sh', '-c', commands);
      t.notMatch(await container.outputOf('vhost-rngctl', 'devices'), new RegExp(`^${name}\\b`, 'm'));
      await container.outputOf('systemctl', 'restart', SERVICE);
      t.notMatch(await container.outputOf('vhost-rngctl', 'devices'), new RegExp(`^${name}\\b`, 'm'));
    }
    await container.outputOf('systemctl', 'unmask', RNG_UNIT);
    await container.outputOf('systemctl', 'stop', SERVICE);
    await container.outputOf('systemctl', 'start', RNG_UNIT);
  });
}

async function testStates(container: SystemdContainer): Promise<void> {
  const fix = /^journalctl -u vhost-rngd\.service/;

  await t.test('a service whose configuration is wrong', async (t) => {
    await container.write(CONFIG, 'no-such-key = 1\n');
    await container.run('systemctl', 'restart', SERVICE);
    const checks = await doctor(container);
    // The connection that was not answered starts it again and again.
    t.match(look(checks, 'systemd'), { found: /is starting|has failed: exit-code/, fix });
    t.match(look(checks, 'control socket'), {
      verdict: 'problem',
      found: /journalctl -u vhost-rngd\.service may say why/,
      fix,
    });
    t.match(look(checks, 'old sockets'), { verdict: 'ok' }, 'systemd listens on them');
    await container.outputOf('install', '-m', '0644', '/usr/share/vhost-rngd/config.toml', CONFIG);
  });

  await t.test('a service that ends again and again', async (t) => {
    await container.dropIn(SERVICE, ['ExecStart=', 'ExecStart=/bin/sh -c "sleep 1; exit 70"']);
    await container.run('systemctl', 'restart', '--no-block', SERVICE);
    await container.untilProperty(SERVICE, 'NRestarts', (times) => Number(times) > 0);
    const checks = await doctor(container);
    t.match(look(checks, 'systemd'), { verdict: 'problem', found: /again and again/, fix });
    t.match(look(checks, 'old sockets'), { verdict: 'ok' });
    await container.dropIn(SERVICE, []);
  });

  await t.test('a service that is masked', async (t) => {
    await container.outputOf('systemctl', 'stop', 'vhost-rngd.socket', RNG_UNIT, SERVICE);
    await container.outputOf('systemctl', 'mask', '--runtime', SERVICE);
    const checks = await doctor(container);
    t.match(look(checks, 'systemd'), {
      found: /is masked/,
      fix: /^sudo systemctl unmask vhost-rngd\.service/,
    });
    t.match(look(checks, 'control socket'), { fix: /^sudo systemctl unmask/ });
    await container.outputOf('systemctl', 'unmask', '--runtime', SERVICE);
    await container.outputOf('systemctl', 'start', 'vhost-rngd.socket', RNG_UNIT);
  });
}
