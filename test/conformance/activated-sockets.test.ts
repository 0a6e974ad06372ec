// Sockets that the service manager opens are devices like others: the configuration names them, also one that is read again, and
// what an operator changes is kept. Leaves out: the real systemd (test/systemd).
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import * as v from 'valibot';
import { DeviceShape, type DeviceStatus, ReloadShape } from '../../daemon/control/shapes.js';
import { listenOn } from '../../daemon/listening-socket.js';
import { Fault } from '../../protocol/fault.js';
import { ask } from '../support/control-client.js';
import { temporaryFolder } from '../support/rng-daemon.js';
import { ServiceManager } from '../support/service-manager.js';
import { VirtualMachine } from '../support/virtual-machine.js';

/** A service with the control socket and one device's socket, `web1`, passed to it. */
function startActivated(t: Test) {
  const folder = temporaryFolder(t);
  const config = join(folder, 'config.toml');
  const path = join(folder, 'web1.sock');
  const control = join(folder, 'control.sock');
  const sockets = [
    { name: 'control', fd: listening(control) },
    { name: 'web1', fd: listening(path) },
  ];
  const manager = new ServiceManager(t);
  const stateFile = join(folder, 'state.json');
  const start = async (): Promise<void> =>
    manager.start([`--config=${config}`, `--state-file=${stateFile}`], { sockets });
  const configure = (text: string): void =>
    writeFileSync(config, `[control]\nsocket = "${control}"\n${text}`);
  const reload = async (): Promise<v.InferOutput<typeof ReloadShape>> =>
    v.parse(ReloadShape, (await ask(control, 'POST /v1/reload')).json);
  const device = async (name: string): Promise<DeviceStatus> =>
    v.parse(DeviceShape, (await ask(control, `GET /v1/devices/${name}`)).json);
  return { manager, path, control, configure, reload, device, start };
}

function listening(path: string) {
  const socket = listenOn(path, { mode: 0o600, group: undefined });
  if (socket instanceof Fault) throw socket;
  return socket.fd;
}

await t.test(
  'a reload that names a socket gives its device limits, and one that no longer does takes them',
  async (t) => {
    const { path, configure, reload, device, start } = startActivated(t);
    configure('');
    await start();
    const vm = VirtualMachine.start(path);
    t.equal(vm.request(64).length, 64);
    t.match(await device('web1'), { limit: null, weight: 1 });

    configure(
      `[[device]]\nname = "web1"\nsocket-path = "${path}"\nmax-bytes = 4096\nperiod = 1000\nweight = 3\n`,
    );
    t.match(await reload(), { changed: [/^device web1: /], needsRestart: [] });
    t.match(await device('web1'), { limit: { maxBytes: 4096, periodMs: 1000 }, weight: 3 });
    t.equal(vm.request(64).length, 64, 'over the same connection');

    configure('');
    t.match(await reload(), { changed: [/^device web1: /] });
    t.match(await device('web1'), { limit: null, weight: 1 });
    vm.close();
  },
);

await t.test('a reload that gives the socket another name waits for a restart', async (t) => {
  const { path, configure, reload, device, start, manager } = startActivated(t);
  configure('');
  await start();
  configure(`[[device]]\nname = "mail"\nsocket-path = "${path}"\nweight = 5\n`);
  t.same(await reload(), { changed: [], needsRestart: ['device web1: name mail'] });
  t.match(await device('web1'), { weight: 1 });
  await manager.kill('SIGTERM');
  await start();
  t.match(await device('mail'), { weight: 5 });
});

await t.test('what an operator has changed of it comes back at the next start', async (t) => {
  const { control, configure, device, start, manager } = startActivated(t);
  configure('');
  await start();
  t.match(await ask(control, 'PATCH /v1/devices/web1', { weight: 9 }), { status: 200 });
  await manager.kill('SIGTERM');
  await start();
  t.match(await device('web1'), { weight: 9 });
});

await t.test('a device on whose socket the service manager listens cannot be removed', async (t) => {
  const { path, control, configure, start } = startActivated(t);
  configure('');
  await start();
  const vm = VirtualMachine.start(path);
  const refused = await ask(control, 'DELETE /v1/devices/web1');
  t.match(refused, {
    status: 409,
    json: { error: { code: 'device_activated', message: /got web1, on whose/ } },
  });
  t.equal(vm.request(64).length, 64, 'its guest is served');
  vm.close();
});

await t.test('a path on which a device listens already', async (t) => {
  const { path, control, configure, start, manager } = startActivated(t);
  configure('');
  await start();
  t.match(await ask(control, 'POST /v1/devices', { name: 'other', socket: path }), {
    status: 400,
    json: { error: { code: 'socket_path_live', message: /got \S+, on which the device web1 listens/ } },
  });
  await manager.kill('SIGTERM');
  t.notMatch(manager.log, /\[(dis)?connected\]/, 'nobody has connected to find out');
});
