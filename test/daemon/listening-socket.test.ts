// The socket file: who may connect, what is replaced, what is refused and with which fix. Row 180 and F42 of
// ARCHITECTURE.md, "Bad input".
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { listenOn, type ListeningSocket, removeSocketFile } from '../../daemon/listening-socket.js';
import { Fault } from '../../protocol/fault.js';
import { asFd, closeFd } from '../../shared-memory/fd.js';
import { connectTo, openSocket, socketRole } from '../../shared-memory/unix-socket.js';
import { temporaryFolder } from '../support/rng-daemon.js';

const ACCESS = { mode: 0o660, group: undefined };

function listening(path: string, access: Parameters<typeof listenOn>[1] = ACCESS): ListeningSocket {
  const socket = listenOn(path, access);
  if (socket instanceof Fault) throw socket;
  return socket;
}

function canConnect(path: string): boolean {
  const client = asFd(openSocket({ nonBlocking: true }));
  const connected = connectTo(client, path) === 0;
  closeFd(client);
  return connected;
}

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

t.test('mode and group of the file, whatever the umask', (t) => {
  const folder = temporaryFolder(t);
  const umask = process.umask(0o077);
  for (const mode of [0o600, 0o660, 0o666, 0o777]) {
    const path = join(folder, `${mode}.sock`);
    const socket = listening(path, { mode, group: '54321' });
    const stat = statSync(path);
    t.equal(stat.mode & 0o777, mode);
    t.equal(stat.gid, 54321);
    t.equal(stat.uid, process.getuid?.());
    t.equal(socketRole(socket.fd), 'listening');
    t.ok(canConnect(path));
    closeFd(socket.fd);
  }
  t.equal(process.umask(umask), 0o077, 'the umask is as it was');
  t.end();
});

t.test('a group by its name', (t) => {
  const path = join(temporaryFolder(t), 'a.sock');
  const socket = listening(path, { mode: 0o660, group: 'daemon' });
  t.ok(statSync(path).gid > 0);
  closeFd(socket.fd);
  t.end();
});

/** What lies at the path, or is wrong with it, before the daemon comes. */
const REFUSED: Readonly<Record<string, { prepare: (path: string) => void; code: string; message: RegExp }>> =
  {
    'row 180: a file': {
      prepare: (path) => writeFileSync(path, 'precious'),
      code: 'socket_path_taken',
      message: /got a file: choose another path or remove/,
    },
    'row 180: a directory': {
      prepare: (path) => mkdirSync(path),
      code: 'socket_path_taken',
      message: /got a directory/,
    },
    'row 180: a symbolic link to nothing': {
      prepare: (path) => symlinkSync('/nowhere/at/all', path),
      code: 'socket_path_taken',
      message: /got a symbolic link/,
    },
    'row 180: a symbolic link to a dead socket': {
      prepare: (path) => {
        closeFd(listening(`${path}.old`).fd);
        symlinkSync(`${path}.old`, path);
      },
      code: 'socket_path_taken',
      message: /got a symbolic link/,
    },
    'row 180: a folder that everyone may write': {
      prepare: (path) => chmodSync(join(path, '..'), 0o777),
      code: 'socket_folder_open',
      message: /chmod o-w /,
    },
  };

for (const [title, { prepare, code, message }] of Object.entries(REFUSED)) {
  t.test(`${title} is refused and left as it is`, (t) => {
    const folder = temporaryFolder(t);
    const path = join(folder, 'rng.sock');
    prepare(path);
    const before = existing(path);
    const fds = descriptors();
    const refused = listenOn(path, ACCESS);
    t.ok(refused instanceof Fault);
    if (refused instanceof Fault) {
      t.equal(refused.code, code);
      t.equal(refused.scope, 'daemon');
      t.match(refused.message, message);
    }
    t.same(existing(path), before);
    t.equal(descriptors(), fds, 'no descriptor is left open');
    t.end();
  });
}

function existing(path: string): unknown {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  return stat && { ino: stat.ino, mode: stat.mode, size: stat.size };
}

function refusal(path: string, access = ACCESS): string {
  const refused = listenOn(path, access);
  return refused instanceof Fault ? refused.code : 'accepted';
}

t.test(
  'row 180: a folder that is not there, or is none; paths that are too long; a group that is not there',
  (t) => {
    const folder = temporaryFolder(t);
    writeFileSync(join(folder, 'file'), '');
    t.equal(refusal(join(folder, 'missing', 'a.sock')), 'socket_folder_missing');
    t.equal(refusal(join(folder, 'file', 'a.sock')), 'socket_folder_missing');
    const fits = join(folder, 'x'.repeat(107 - folder.length - 1));
    t.equal(Buffer.byteLength(fits), 107);
    t.equal(refusal(`${fits}x`), 'socket_path_long');
    t.equal(
      refusal(join(folder, 'ü'.repeat(50))),
      Buffer.byteLength(folder) + 101 > 107 ? 'socket_path_long' : 'accepted',
    );
    closeFd(listening(fits).fd);
    t.match(listenOn(join(folder, 'b.sock'), { mode: 0o660, group: 'no-such-group' }), {
      code: 'socket_group',
    });
    t.notOk(existsSync(join(folder, 'b.sock')), 'nothing was made');
    t.end();
  },
);

t.test('row 180: a folder that everyone may write, with the sticky bit, is good (/tmp)', (t) => {
  const folder = temporaryFolder(t);
  chmodSync(folder, 0o1777);
  closeFd(listening(join(folder, 'a.sock')).fd);
  t.end();
});

t.test('row 180, F42: a live socket is refused and goes on; a dead one is replaced', (t) => {
  const path = join(temporaryFolder(t), 'a.sock');
  const first = listening(path);
  for (let i = 0; i < 3; i++) t.equal(refusal(path), 'socket_path_live');
  t.ok(canConnect(path), 'the first daemon is undisturbed');
  closeFd(first.fd);
  t.notOk(canConnect(path));
  const second = listening(path);
  t.not(second.inode, 0);
  t.ok(canConnect(path));
  closeFd(second.fd);
  t.end();
});

t.test('F42: a live socket whose backlog is full is refused too', (t) => {
  const path = join(temporaryFolder(t), 'a.sock');
  const first = listening(path);
  const clients = [];
  for (let connected = 0; connected === 0;) {
    const client = asFd(openSocket({ nonBlocking: true }));
    connected = connectTo(client, path);
    clients.push(client);
  }
  t.equal(refusal(path), 'socket_path_live');
  for (const fd of [first.fd, ...clients]) closeFd(fd);
  t.end();
});

function withFile(t: Test, change: (path: string) => void): string | undefined {
  const path = join(temporaryFolder(t), 'a.sock');
  const socket = listening(path);
  change(path);
  removeSocketFile(socket);
  closeFd(socket.fd);
  return lstatSync(path, { throwIfNoEntry: false }) === undefined ? undefined : 'still there';
}

t.test('at the exit the file goes, unless it is another one by then', (t) => {
  t.equal(
    withFile(t, () => undefined),
    undefined,
  );
  t.equal(withFile(t, unlinkSync), undefined, 'someone has removed it: no error');
  const others: readonly ((path: string) => void)[] = [
    (path) => writeFileSync(path, 'another'),
    (path) => mkdirSync(path),
    (path) => symlinkSync('/nowhere', path),
    (path) => closeFd(listening(path).fd),
  ];
  for (const put of others) {
    const left = withFile(t, (path) => {
      unlinkSync(path);
      put(path);
    });
    t.equal(left, 'still there');
  }
  t.end();
});

t.test(
  'a group that this user may not give away, or a folder that is closed to it: refused, nothing is left',
  (t) => {
    const folder = temporaryFolder(t);
    chmodSync(folder, 0o755);
    for (const [mode, group] of [
      [0o777, 'root'],
      [0o700, undefined],
    ] as const) {
      const own = join(folder, `${mode}`);
      mkdirSync(own);
      chownSync(own, group === undefined ? 0 : 65534, 0);
      chmodSync(own, mode & ~0o022);
      const path = join(own, 'a.sock');
      const script = `
      process.setgid(65534); process.setgroups([]); process.setuid(65534);
      const { listenOn } = await import('${new URL('../../daemon/listening-socket.js', import.meta.url).href}');
      console.log(listenOn('${path}', { mode: 0o660, group: ${JSON.stringify(group)} }).code);`;
      const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
        encoding: 'utf8',
      });
      t.match(stdout, /^socket_(file|bind)\n$/, stderr);
      t.notOk(existsSync(path));
    }
    t.end();
  },
);
