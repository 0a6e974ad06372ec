// What doctor finds, each look both ways: on hosts that are made up, since most faults cannot be had on this one.
import t from 'tap';
import type { Check } from '../../../daemon/ctl/check.js';
import { thisHost } from '../../../daemon/ctl/host.js';
import {
  checkAppArmor,
  checkEpollWatches,
  checkGuestMemory,
  checkLimits,
  checkNode,
  checkQemu,
} from '../../../daemon/ctl/host-checks.js';
import { allows, daemonUser, Right, thisUser } from '../../../daemon/ctl/host-user.js';
import {
  checkControlSocket,
  checkFolder,
  checkStaleSockets,
  listeningPaths,
  type Served,
} from '../../../daemon/ctl/socket-checks.js';
import { checkConfiguredSources, checkHwrng, checkKernelPool } from '../../../daemon/ctl/source-checks.js';
import { parseSourceSpec, type SourceSpec } from '../../../daemon/entropy/source-spec.js';
import { Fault } from '../../../protocol/fault.js';
import { found } from '../../support/found-check.js';
import { madeUpHost } from '../../support/made-up-host.js';

const SERVICE = { name: 'vhost-rngd', uid: 105, gids: [105] };

await t.test('node', (t) => {
  for (const nodeVersion of ['20.12.0', '22.0.0', '26.1.0'])
    found(t, checkNode(madeUpHost({ nodeVersion })), 'ok', /version/);
  for (const nodeVersion of ['18.20.4', '20.11.1'])
    found(
      t,
      checkNode(madeUpHost({ nodeVersion })),
      'problem',
      /20\.12 or later/,
      /apt-get install -y nodejs/,
    );
  t.end();
});

await t.test('/dev/random', (t) => {
  const path = '/dev/random';
  found(t, checkKernelPool(madeUpHost({ stats: { [path]: '0:0 20666' } })), 'ok', /can be read/);
  found(
    t,
    checkKernelPool(madeUpHost({ stats: { [path]: '0:0 20600' } })),
    'problem',
    /cannot be read by ada/,
    /sudo chmod 0666/,
  );
  found(t, checkKernelPool(madeUpHost()), 'problem', /is not there/, /sudo mknod/);
  t.end();
});

await t.test('/dev/hwrng: whether it is there, works, and is for the daemon to read', (t) => {
  const host = (mode: string, current = 'tpm-rng-0\n', available = 'tpm-rng-0\n') =>
    madeUpHost({
      stats: { '/dev/hwrng': mode },
      files: {
        '/sys/class/misc/hw_random/rng_current': current,
        '/sys/class/misc/hw_random/rng_available': available,
      },
    });
  found(t, checkHwrng(host('0:105 20440'), SERVICE, true), 'ok', /tpm-rng-0, and vhost-rngd may read it/);
  found(
    t,
    checkHwrng(host('0:0 20600'), SERVICE, true),
    'problem',
    /vhost-rngd may not read it \(root:root, mode 0600\)/,
    /udevadm trigger/,
  );
  found(t, checkHwrng(host('0:0 20600'), SERVICE, false), 'note', /may not read it/, /90-vhost-rngd\.rules/);
  found(t, checkHwrng(host('0:0 20600'), undefined, false), 'note', /ada may not read it/, /./);
  found(
    t,
    checkHwrng(host('0:105 20440', 'none\n'), SERVICE, true),
    'problem',
    /no generator behind it/,
    /echo tpm-rng-0 \| sudo tee .*rng_current/,
  );
  found(
    t,
    checkHwrng(host('0:105 20440', 'none\n', '\n'), SERVICE, false),
    'note',
    /no generator behind it/,
    /modprobe/,
  );
  found(t, checkHwrng(madeUpHost(), SERVICE, false), 'note', /is not there/, /modprobe/);
  found(t, checkHwrng(madeUpHost(), SERVICE, true), 'problem', /is not there/, /modprobe/);
  t.end();
});

function spec(text: string): SourceSpec {
  const parsed = parseSourceSpec(text, true);
  if (parsed instanceof Fault) throw parsed;
  return parsed;
}

await t.test('sources of a configuration, each by itself', async (t) => {
  const missing = '/nonexistent/hwrng';
  const specs = [spec('random'), spec(`hwrng:${missing}`), spec('getrandom')];
  const [random, hwrng, getrandom] = await checkConfiguredSources(thisHost, specs, undefined);
  found(t, random, 'ok', /can be opened/);
  found(t, hwrng, 'problem', /ENOENT/);
  found(t, getrandom, 'ok', /can be opened/);
  // What this user cannot open is well when the daemon's can.
  const host = madeUpHost({ stats: { [missing]: '105:105 20400' } });
  const [kept] = await checkConfiguredSources(host, [spec(`hwrng:${missing}`)], SERVICE);
  found(t, kept, 'ok', /for vhost-rngd to open, not for ada/);
  const [refused] = await checkConfiguredSources(host, [spec(`hwrng:${missing}`)], {
    ...SERVICE,
    uid: 106,
    gids: [106],
  });
  t.equal(refused?.verdict, 'problem');
});

await t.test('who may do what with a file', (t) => {
  const ada = { name: 'ada', uid: 1000, gids: [1000, 105] };
  t.ok(allows({ mode: 0o640, uid: 0, gid: 105 }, ada, Right.Read), 'by a further group');
  t.notOk(allows({ mode: 0o640, uid: 0, gid: 105 }, ada, Right.Write));
  t.notOk(
    allows({ mode: 0o066, uid: 1000, gid: 105 }, ada, Right.Read),
    "the owner's bits alone count for the owner",
  );
  t.notOk(allows({ mode: 0o606, uid: 0, gid: 105 }, ada, Right.Read), "the group's alone for its members");
  t.ok(allows({ mode: 0o004, uid: 0, gid: 0 }, ada, Right.Read));
  t.ok(allows({ mode: 0, uid: 5, gid: 5 }, { name: 'root', uid: 0, gids: [0] }, Right.Write), 'root may');
  t.notOk(
    allows({ mode: 0o660, uid: 1000, gid: 0 }, ada, Right.Write | Right.Enter),
    'all that is asked for',
  );
  t.end();
});

await t.test('whom the daemon runs as', (t) => {
  const status = 'Name:\tnode\nUid:\t0\t107\t0\t0\nGid:\t0\t107\t0\t0\nGroups:\t107 44 \n';
  const host = madeUpHost({ files: { '/proc/77/status': status } });
  t.same(daemonUser(host, 77), { name: 'qemu', uid: 107, gids: [107, 107, 44] }, 'the user of the process');
  t.same(
    daemonUser(host, undefined),
    { name: 'vhost-rngd', uid: 105, gids: [105] },
    "the service's, when none runs",
  );
  t.equal(daemonUser(host, 78), undefined, 'a process that has gone');
  t.equal(
    daemonUser(madeUpHost({ files: { '/etc/passwd': 'root:x:0:0::/:/bin/sh\n' } }), undefined),
    undefined,
  );
  t.equal(thisUser(host).name, 'ada');
  t.end();
});

const REMEDIES = {
  start: 'systemctl enable --now vhost-rngd.socket',
  restart: 'systemctl restart vhost-rngd',
};

await t.test('control socket', (t) => {
  const path = '/run/vhost-rngd/control.sock';
  const host = (mode: string, gids: readonly number[] = [1000]) =>
    madeUpHost({ stats: { [path]: mode }, gids });
  found(
    t,
    checkControlSocket(host('105:105 140660', [1000, 105]), path, undefined, REMEDIES),
    'ok',
    /vhost-rngd:vhost-rngd, mode 0660: ada may use it/,
  );
  found(
    t,
    checkControlSocket(host('105:105 140660'), path, 'EACCES', REMEDIES),
    'problem',
    /ada may not use it/,
    /^sudo usermod -aG vhost-rngd ada && newgrp vhost-rngd$/,
  );
  found(
    t,
    checkControlSocket(host('0:0 140660'), path, 'EACCES', REMEDIES),
    'problem',
    /ada may not use it/,
    /^sudo vhost-rngctl doctor$/,
  );
  found(
    t,
    checkControlSocket(host('105:105 140666'), path, 'nobody serves it', REMEDIES),
    'problem',
    /nobody serves it/,
    /systemctl restart/,
  );
  found(
    t,
    checkControlSocket(madeUpHost(), path, 'nothing there', REMEDIES),
    'problem',
    /nothing there/,
    /systemctl enable --now vhost-rngd/,
  );
  found(t, checkControlSocket(madeUpHost(), path, undefined, REMEDIES), 'note', /cannot be looked at/);
  t.end();
});

await t.test('socket folders: who can put a socket there', (t) => {
  const folder = '/run/vhost-rngd';
  const check = (mode: string): Check =>
    checkFolder(madeUpHost({ stats: { [folder]: mode } }), folder, SERVICE);
  found(t, check('105:105 40755'), 'ok', /vhost-rngd:vhost-rngd, mode 0755/);
  found(t, check('105:105 40777'), 'problem', /anyone can replace/, /^sudo chmod o-w \/run\/vhost-rngd$/);
  found(t, check('0:0 41777'), 'note', /before the daemon does/);
  found(t, check('0:0 40755'), 'problem', /vhost-rngd can make no socket there/, /^sudo chown vhost-rngd /);
  found(
    t,
    checkFolder(madeUpHost({ stats: { [folder]: '0:0 40755' } }), folder, undefined),
    'ok',
    /root:root/,
  );
  found(t, check('105:107 40775'), 'note', /members of qemu can replace/, /chmod g-w/);
  found(t, check('105:105 40700'), 'note', /only its owner/, /chmod g\+x/);
  found(
    t,
    checkFolder(madeUpHost(), folder, SERVICE),
    'problem',
    /is not there/,
    /^sudo install -d -m 0755 -o vhost-rngd \/run\/vhost-rngd$/,
  );
  found(
    t,
    checkFolder(madeUpHost(), "/tmp/it's", undefined),
    'problem',
    /is not there/,
    /'\/tmp\/it'\\''s'$/,
  );
  t.end();
});

await t.test('a folder in which systemd makes the sockets need not be the daemon’s', (t) => {
  const host = madeUpHost({ stats: { '/run/vhost-rngd-vm': '0:0 40755' } });
  found(t, checkFolder(host, '/run/vhost-rngd-vm', undefined), 'ok', /root:root, mode 0755/);
  t.end();
});

const UNIX_TABLE = [
  'Num       RefCount Protocol Flags    Type St Inode Path',
  '00000000042fd6ad: 00000002 00000000 00010000 0001 01 21908 /run/a/live.sock',
  '00000000042fd6ae: 00000003 00000000 00000000 0001 03 21909 /run/a/connected.sock',
  '00000000042fd6af: 00000003 00000000 00000000 0001 03 628',
  '00000000042fd6b0: 00000002 00000000 00010000 0001 01    31 /run/a/with space.sock',
  '',
].join('\n');

const NONE_SERVED: Served = { live: [], paths: new Set(), pids: [], isStarting: false };

await t.test('sockets on which nobody listens', (t) => {
  t.same(listeningPaths(UNIX_TABLE), ['/run/a/live.sock', '/run/a/with space.sock']);
  const stats = {
    '/run/a/live.sock': '0:0 140660',
    '/run/a/with space.sock': '0:0 140660',
    '/run/a/plain': '0:0 100644',
  };
  const check = (
    files: Record<string, string>,
    live: readonly string[] = [],
    more: Partial<Served> = {},
  ): Check => {
    const host = madeUpHost({ stats: { ...stats, ...files }, files: { '/proc/net/unix': UNIX_TABLE } });
    return checkStaleSockets(host, ['/run/a'], { ...NONE_SERVED, live, ...more });
  };
  found(t, check({}), 'ok', /none/);
  const old = { '/run/a/old.sock': '0:0 140660' };
  found(t, check(old), 'note', /nobody listens on \/run\/a\/old\.sock/, /^sudo rm \/run\/a\/old\.sock$/);
  found(t, check(old, ['/run/a/old.sock']), 'ok', /none/);
  found(t, check(old, [], { paths: new Set(['/run/a/old.sock']) }), 'ok', /none/);
  found(t, check(old, [], { isStarting: true }), 'note', /is being started, and replaces its own/);
  t.end();
});

await t.test("a daemon's own network namespace has its own table of sockets", (t) => {
  const host = madeUpHost({
    stats: { '/run/a/live.sock': '0:0 140660' },
    files: { '/proc/net/unix': '', '/proc/77/net/unix': UNIX_TABLE },
  });
  found(t, checkStaleSockets(host, ['/run/a'], { ...NONE_SERVED, pids: [77] }), 'ok', /none/);
  found(t, checkStaleSockets(host, ['/run/a'], NONE_SERVED), 'note', /live\.sock/, /rm/);
  t.end();
});

await t.test('limits, of the daemon where one runs', (t) => {
  const limits = (locked: string, files: string): string =>
    `Limit                     Soft Limit           Hard Limit           Units     \nMax open files            ${files.padEnd(21)}1048576              files     \nMax locked memory         ${locked.padEnd(21)}8388608              bytes     \n`;
  const check = (path: string, text: string, pid?: number): Check[] =>
    checkLimits(madeUpHost({ files: { [path]: text } }), pid, 'vhost-rngd@web1.service');
  const [locked, files] = check('/proc/self/limits', limits('8388608', '20000'));
  found(t, locked, 'ok', /limit of this shell: 8\.00 MiB/);
  found(t, files, 'ok', /20000/);
  const [few, little] = check('/proc/self/limits', limits('65536', '1024'));
  found(t, few, 'problem', /64\.0 KiB, and 256 KiB are needed/, /^ulimit -l 8192$/);
  found(t, little, 'note', /1024, enough for some 102 guests/, /^ulimit -n/);
  const [exact] = check('/proc/77/limits', limits('262144', 'unlimited'), 77);
  found(t, exact, 'ok', /limit of the daemon: 256 KiB/);
  const [unit] = check('/proc/77/limits', limits('262143', 'unlimited'), 77);
  found(
    t,
    unit,
    'problem',
    /limit of the daemon/,
    /mkdir -p (\/etc\/systemd\/system\/vhost-rngd@web1\.service\.d) && .*LimitMEMLOCK=8M.*tee \1\/LimitMEMLOCK\.conf && sudo systemctl daemon-reload && sudo systemctl restart vhost-rngd@web1\.service$/,
  );
  const [, fewer] = check('/proc/77/limits', limits('262144', '1024'), 77);
  found(
    t,
    fewer,
    'note',
    /1024/,
    /LimitNOFILE=65536.*daemon-reload && sudo systemctl restart vhost-rngd@web1/,
  );
  found(t, checkLimits(madeUpHost(), 77, 'vhost-rngd.service')[0], 'note', /cannot be read/);
  t.end();
});

await t.test('memory that guests can share', (t) => {
  found(t, checkGuestMemory(madeUpHost()), 'ok', /memory-backend-memfd/);
  const memfdFailure = 'memfd_create: ENOSYS';
  found(
    t,
    checkGuestMemory(madeUpHost({ memfdFailure, stats: { '/dev/shm': '0:0 41777' } })),
    'note',
    /memory-backend-file,mem-path=\/dev\/shm/,
  );
  found(t, checkGuestMemory(madeUpHost({ memfdFailure })), 'problem', /ENOSYS/, /mount -t tmpfs/);
  found(t, checkGuestMemory(thisHost), 'ok', /sealed/);
  t.end();
});

await t.test('AppArmor, where it confines guests of libvirt', (t) => {
  const stats = { '/etc/apparmor.d/abstractions/libvirt-qemu': '0:0 100644' };
  const check = (enabled: string | undefined, local?: string): Check =>
    checkAppArmor(
      madeUpHost({
        stats,
        files: {
          ...(enabled !== undefined && { '/sys/module/apparmor/parameters/enabled': enabled }),
          ...(local !== undefined && { '/etc/apparmor.d/local/abstractions/libvirt-qemu': local }),
        },
      }),
      ['/run/vhost-rngd'],
    );
  found(t, check(undefined), 'ok', /confines nothing/);
  found(t, check('N\n'), 'ok', /confines nothing/);
  found(t, check('Y\n', '  /run/vhost-rngd/*.sock rw,\n'), 'ok', /may open/);
  const fix =
    /^printf '%s\\n' ' {2}\/run\/vhost-rngd\/\*\.sock rw,' \| sudo tee -a \/etc\/apparmor\.d\/local\/abstractions\/libvirt-qemu$/;
  found(t, check('Y\n'), 'problem', /may not open sockets in \/run\/vhost-rngd/, fix);
  found(t, check('Y\n', '# /run/vhost-rngd/*.sock rw,\n'), 'problem', /may not open/, fix);
  const noLibvirt = madeUpHost({ files: { '/sys/module/apparmor/parameters/enabled': 'Y\n' } });
  found(t, checkAppArmor(noLibvirt, ['/run/vhost-rngd']), 'ok', /no profile/);
  t.end();
});

await t.test('QEMU and epoll', async (t) => {
  const qemu = (text?: string): Promise<Check> =>
    checkQemu(madeUpHost({ programs: text === undefined ? {} : { 'qemu-system-x86_64': text } }));
  found(t, await qemu('QEMU emulator version 7.2.22 (Debian 1:7.2)\n'), 'ok', /7\.2\.22/);
  found(t, await qemu('QEMU emulator version 10.0.2\n'), 'note', /ends when its back-end comes back/);
  found(t, await qemu(), 'note', /no qemu/);
  const watches = (most: string): Check =>
    checkEpollWatches(madeUpHost({ files: { '/proc/sys/fs/epoll/max_user_watches': most } }));
  found(t, watches('65536\n'), 'ok', /65536/);
  found(t, watches('5491511\n'), 'note', /5491511/, /sysctl -w/);
});

await t.test('a program that does not end is not waited for', async (t) => {
  const begunMs = performance.now();
  t.equal(await thisHost.run('sleep', ['60']), undefined);
  t.ok(performance.now() - begunMs < 10_000);
  t.equal(await thisHost.run('no-such-program', []), undefined);
  t.equal((await thisHost.run('echo', ['said']))?.trim(), 'said');
});
