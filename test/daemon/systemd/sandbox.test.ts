// What the service's sandbox hides, from the text of mountinfo as systemd 252 makes it.
import t from 'tap';
import { hiddenBy, isService } from '../../../daemon/systemd/sandbox.js';

const MOUNTS = [
  '650 605 0:30 / / ro,relatime shared:1 - overlay overlay rw',
  '660 650 0:41 / /run rw,nosuid,nodev - tmpfs tmpfs rw',
  '661 660 0:41 /vhost-rngd /run/vhost-rngd rw,nosuid,nodev - tmpfs tmpfs rw',
  '662 650 0:41 /systemd/inaccessible/dir /home ro,nosuid,nodev,noexec - tmpfs tmpfs rw',
  '663 660 0:41 /host/inaccessible/dir /run/user ro,nosuid,nodev,noexec - tmpfs tmpfs rw',
  '664 650 0:44 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw',
  '665 664 0:44 /systemd-private-1f-vhost-rngd.service-Xy/tmp /tmp rw,nosuid,nodev - tmpfs tmpfs rw',
  '666 650 0:30 /var/tmp/systemd-private-1f-vhost-rngd.service-Zy/tmp /var/tmp rw - overlay overlay rw',
  '667 662 0:50 / /home/shared rw - tmpfs tmpfs rw',
  '',
].join('\n');

t.test('folders that are hidden, or the service’s own', (t) => {
  for (const [path, point] of Object.entries({
    '/home/ada/a.sock': '/home',
    '/run/user/1000/a.sock': '/run/user',
  }))
    t.match(
      hiddenBy(path, MOUNTS),
      new RegExp(`got ${point}, which its sandbox hides \\(ProtectHome=\\): use /run/vhost-rngd$`),
    );
  for (const [path, point] of Object.entries({ '/tmp/a.sock': '/tmp', '/var/tmp/x/a.sock': '/var/tmp' }))
    t.match(
      hiddenBy(path, MOUNTS),
      new RegExp(`got ${point}, of which the service has its own \\(PrivateTmp=\\)`),
    );
  const seen = [
    '/run/vhost-rngd/a.sock',
    '/run/a.sock',
    '/srv/a.sock',
    '/homes/a.sock',
    '/tmpfile.sock',
    '/home/shared/a.sock',
  ];
  for (const path of seen) t.equal(hiddenBy(path, MOUNTS), undefined, path);
  t.equal(hiddenBy('/tmp/a.sock', ''), undefined);
  t.end();
});

t.test('only the process that systemd has started is the service', (t) => {
  t.ok(isService({ SYSTEMD_EXEC_PID: '77' }, 77));
  t.notOk(isService({ SYSTEMD_EXEC_PID: '77' }, 78), 'a program that the service runs');
  t.notOk(isService({}, 77));
  t.end();
});
