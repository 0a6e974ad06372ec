// Which units are meant, from names alone: those of the files in systemd/.
import t from 'tap';
import { closingCommands, serviceAt, serviceOf, socketUnitOf } from '../../../daemon/systemd/unit-names.js';

t.test('the service of a process', (t) => {
  const instance = '0::/system.slice/system-vhost\\x2drngd.slice/vhost-rngd@web1.service\n';
  t.equal(serviceOf(instance), 'vhost-rngd@web1.service');
  const user = '/user.slice/user-1000.slice/user@1000.service/app.slice';
  t.equal(
    serviceOf(`3:cpu:/\n1:name=systemd:${user}/rngd.service\n0::/\n`),
    'rngd.service',
    'cgroups of before',
  );
  t.equal(serviceOf(`0::${user}/run-5.scope\n`), undefined, 'of a user, and no service');
  t.equal(serviceOf('0::/\n'), undefined);
  t.equal(socketUnitOf('vhost-rngd@web1.service'), 'vhost-rngd@web1.socket');
  t.end();
});

t.test('the service behind a control socket', (t) => {
  t.equal(serviceAt('/run/vhost-rngd/control.sock'), 'vhost-rngd.service');
  t.equal(serviceAt('/run/vhost-rngd-vm/web1.control'), 'vhost-rngd@web1.service');
  t.equal(serviceAt('/tmp/control.sock'), undefined);
  t.end();
});

t.test('what ends a device on whose socket systemd listens', (t) => {
  t.equal(
    closingCommands('web2', 'vhost-rngd.service'),
    'systemctl disable --now vhost-rngd-device@web2.socket && systemctl restart vhost-rngd.service',
  );
  t.equal(
    closingCommands('rng', 'vhost-rngd.service'),
    'systemctl mask --now vhost-rngd-device@rng.socket && systemctl restart vhost-rngd.service',
    'vhost-rngd.socket wants it',
  );
  t.equal(
    closingCommands('web1', 'vhost-rngd@web1.service'),
    'systemctl disable --now vhost-rngd@web1.socket && systemctl stop vhost-rngd@web1.service',
    'an instance has no other device',
  );
  t.equal(
    closingCommands('own.socket', 'own.service'),
    'systemctl disable --now own.socket && systemctl stop own.service',
    'a socket without a name of its own has that of its unit',
  );
  t.equal(closingCommands('web1', 'other.service'), undefined);
  t.equal(closingCommands('web1', undefined), undefined);
  t.end();
});
