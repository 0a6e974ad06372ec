// What doctor finds of systemd, from what systemctl prints: the daemon's unit, how it stands, and on which paths systemd listens. Leaves
// out: the real systemd (test/systemd/doctor).
import t from 'tap';
import type { Check } from '../../../daemon/ctl/check.js';
import { checkSystemd, startOf } from '../../../daemon/ctl/unit-checks.js';
import { askSystemd, unitName } from '../../../daemon/ctl/units.js';
import { SERVICE_UNIT } from '../../../daemon/systemd/unit-names.js';
import { found } from '../../support/found-check.js';
import { madeUpHost } from '../../support/made-up-host.js';

await t.test('the unit of the daemon', (t) => {
  const host = madeUpHost({
    files: {
      '/proc/7/cgroup': '0::/system.slice/system-vhost\\x2drngd.slice/vhost-rngd@web1.service\n',
      '/proc/8/cgroup':
        '3:cpu:/\n1:name=systemd:/user.slice/user-1000.slice/user@1000.service/app.slice/rngd.service\n0::/\n',
      '/proc/9/cgroup': '0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-5.scope\n',
    },
  });
  const control = '/run/vhost-rngd/control.sock';
  t.equal(unitName(host, 7, control), 'vhost-rngd@web1.service');
  t.equal(unitName(host, 8, control), 'rngd.service', 'of a user, with the cgroups of before');
  t.equal(unitName(host, 9, control), 'vhost-rngd.service', 'no service, so the default');
  t.equal(unitName(host, undefined, control), 'vhost-rngd.service');
  t.equal(unitName(host, undefined, '/run/vhost-rngd-vm/web1.control'), 'vhost-rngd@web1.service');
  t.match(startOf('vhost-rngd.service'), /enable --now vhost-rngd\.socket$/);
  t.match(startOf('vhost-rngd@web1.service'), /systemctl enable --now vhost-rngd@web1\.socket$/);
  t.end();
});

/** What doctor says where systemctl prints these blocks. */
async function systemdCheck(...units: readonly string[]): Promise<Check> {
  const host = madeUpHost({
    stats: { '/run/systemd/system': '0:0 40755' },
    programs: { systemctl: `${units.join('\n\n')}\n` },
  });
  return checkSystemd(await askSystemd(host, SERVICE_UNIT), SERVICE_UNIT);
}

function service(state: string): string {
  return `Id=${SERVICE_UNIT}\nMainPID=0\n${state.replaceAll(' ', '\n')}`;
}

function socket(state: string): string {
  return `Id=vhost-rngd.socket\n${state.replaceAll(' ', '\n')}\nListen=/run/vhost-rngd/control.sock (Stream)`;
}

await t.test('systemd: the command that fits how the service stands', async (t) => {
  found(t, checkSystemd(await askSystemd(madeUpHost(), SERVICE_UNIT), SERVICE_UNIT), 'ok', /does not run/);
  const silent = madeUpHost({ stats: { '/run/systemd/system': '0:0 40755' } });
  found(t, checkSystemd(await askSystemd(silent, SERVICE_UNIT), SERVICE_UNIT), 'note', /no answer/);

  const missing = await systemdCheck(service('LoadState=not-found ActiveState=inactive'));
  found(t, missing, 'note', /there is no vhost-rngd\.service/);
  const active = await systemdCheck(service('LoadState=loaded ActiveState=active Result=success'));
  found(t, active, 'ok', /is active/);
  const failed = await systemdCheck(service('LoadState=loaded ActiveState=failed Result=exit-code'));
  found(t, failed, 'problem', /has failed: exit-code/, /^journalctl -u vhost-rngd\.service/);
  const starting = await systemdCheck(
    service('LoadState=loaded ActiveState=activating SubState=start NRestarts=0'),
  );
  found(t, starting, 'note', /is starting/, /^journalctl -u vhost-rngd\.service/);
  for (const state of ['SubState=auto-restart NRestarts=0', 'SubState=start NRestarts=4']) {
    const loop = await systemdCheck(
      service(`LoadState=loaded ActiveState=activating Result=exit-code ${state}`),
    );
    found(
      t,
      loop,
      'problem',
      /again and again, \d times so far: exit-code/,
      /^journalctl -u vhost-rngd\.service/,
    );
  }
  const masked = await systemdCheck(service('LoadState=masked ActiveState=inactive'));
  found(t, masked, 'note', /is masked/, /^sudo systemctl unmask vhost-rngd\.service && /);
  const stopping = await systemdCheck(service('LoadState=loaded ActiveState=deactivating'));
  found(t, stopping, 'note', /is deactivating/, /^systemctl status/);
});

await t.test('systemd: a service that a connection starts', async (t) => {
  const inactive = service('LoadState=loaded ActiveState=inactive');
  found(t, await systemdCheck(inactive), 'note', /is inactive/, /enable --now vhost-rngd\.service$/);
  const withSocket = (state: string): Promise<Check> => systemdCheck(inactive, socket(state));
  found(
    t,
    await withSocket('LoadState=loaded ActiveState=active'),
    'ok',
    /first connection to vhost-rngd\.socket/,
  );
  found(
    t,
    await withSocket('LoadState=loaded ActiveState=inactive UnitFileState=enabled'),
    'note',
    /and so is vhost-rngd\.socket/,
    /^sudo systemctl start vhost-rngd\.socket$/,
  );
  found(
    t,
    await withSocket('LoadState=loaded ActiveState=inactive UnitFileState=disabled'),
    'note',
    /and so is/,
    /^sudo systemctl enable --now vhost-rngd\.socket$/,
  );
  found(
    t,
    await withSocket('LoadState=loaded ActiveState=failed Result=resources'),
    'problem',
    /vhost-rngd\.socket has failed: resources/,
    /^journalctl -u vhost-rngd\.socket/,
  );
  found(
    t,
    await withSocket('LoadState=masked ActiveState=inactive'),
    'note',
    /vhost-rngd\.socket is masked/,
    /^sudo systemctl unmask vhost-rngd\.socket && sudo systemctl start vhost-rngd\.socket$/,
  );
});

await t.test('paths on which systemd listens, of all its socket units', async (t) => {
  const host = madeUpHost({
    stats: { '/run/systemd/system': '0:0 40755' },
    programs: {
      systemctl: [
        'Id=vhost-rngd@web1.service\nMainPID=77',
        'Id=vhost-rngd@web1.socket\nListen=/run/a b.sock (Stream)\nListen=/run/c.sock (Datagram)',
        'Id=other.socket\nListen=[::]:22 (Stream)\nListen=@abstract (Stream)\n',
      ].join('\n\n'),
    },
  });
  const systemd = await askSystemd(host, 'vhost-rngd@web1.service');
  if (typeof systemd === 'string') throw new Error(systemd);
  t.same([...systemd.paths], ['/run/a b.sock', '/run/c.sock']);
  t.equal(systemd.service?.pid, 77);
  t.equal(systemd.socket?.id, 'vhost-rngd@web1.socket');
});
