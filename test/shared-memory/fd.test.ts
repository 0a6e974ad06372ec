// Descriptors and what they are: kinds, sizes, seals, eventfds, memfds, error names.
import { fstatSync, openSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { Errno, errnoName } from '../../shared-memory/errno.js';
import { openEventfd, readEventfd, signal } from '../../shared-memory/eventfd.js';
import {
  asFd,
  closeFd,
  fdKind,
  inspectFd,
  isSealedAgainstShrinking,
  setNonBlocking,
} from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import { openMemfd } from '../../shared-memory/memfd.js';
import {
  addToEventfd,
  openBlockingEventfd,
  openPipe,
  openSocketPair,
  openTimerfd,
} from '../support/fd-kinds.js';
import { temporaryFolder } from '../support/rng-daemon.js';

t.test('kinds of descriptors', (t) => {
  const path = join(temporaryFolder(t), 'file');
  writeFileSync(path, 'x');
  const [socket, peer] = openSocketPair();
  const [readEnd, writeEnd] = openPipe();
  const kinds = [
    [openEventfd(), 'eventfd'],
    [openBlockingEventfd({ semaphore: true }), 'eventfd'],
    [openTimerfd(), 'other'],
    [asFd(libc.epollCreate(0)), 'other'],
    [socket, 'socket'],
    [peer, 'socket'],
    [readEnd, 'pipe'],
    [writeEnd, 'pipe'],
    [asFd(openSync(path, 'r')), 'regular file'],
    [openMemfd('rngd', 4096), 'regular file'],
    [asFd(openSync('/', 'r')), 'directory'],
    [asFd(openSync('/dev/null', 'r')), 'character device'],
  ] as const;
  for (const [fd, kind] of kinds) {
    t.equal(fdKind(fd), kind);
    closeFd(fd);
    t.equal(fdKind(fd), 'other', 'a closed one is nothing, and no exception');
  }
  t.end();
});

t.test('memfds: size and seals', (t) => {
  for (const sealed of [true, false]) {
    const fd = openMemfd('rngd', 12_345, { sealed });
    t.equal(inspectFd(fd).bytes, 12_345n);
    t.equal(isSealedAgainstShrinking(fd), sealed);
    closeFd(fd);
  }
  const huge = openMemfd('rngd', 2 ** 52);
  t.equal(inspectFd(huge).bytes, 2n ** 52n);
  closeFd(huge);
  const socket = asFd(libc.socket(libc.AF_UNIX, libc.SOCK_STREAM));
  t.equal(isSealedAgainstShrinking(socket), false, 'what has no seals is not sealed');
  closeFd(socket);
  t.end();
});

t.test('setNonBlocking', (t) => {
  const fd = openBlockingEventfd({ semaphore: false });
  setNonBlocking(fd);
  setNonBlocking(fd);
  t.equal(readEventfd(fd), -Errno.EAGAIN);
  closeFd(fd);
  t.end();
});

t.test('eventfds: counts, an empty one, a full one, one that is closed', (t) => {
  const fd = openEventfd();
  t.equal(readEventfd(fd), -Errno.EAGAIN);
  for (let i = 0; i < 3; i++) t.equal(signal(fd), 8);
  t.equal(readEventfd(fd), 3);
  t.equal(addToEventfd(fd, 2 ** 32 - 1), 8);
  t.equal(readEventfd(fd), 2 ** 32 - 1);
  t.equal(readEventfd(fd), -Errno.EAGAIN);
  const FULL = 2n ** 64n - 2n;
  for (let left = FULL; left > 0n;) {
    const step = left > 2n ** 52n ? 2n ** 52n : left;
    addToEventfd(fd, Number(step));
    left -= step;
  }
  t.equal(signal(fd), -Errno.EAGAIN, 'row 41: at its maximum');
  closeFd(fd);
  t.equal(signal(fd), -constants.errno.EBADF);
  t.equal(readEventfd(fd), -constants.errno.EBADF);
  t.end();
});

t.test('eventfds are close-on-exec', (t) => {
  const fd = openEventfd();
  const F_GETFD = 1;
  t.equal(libc.fcntl(fd, F_GETFD, 0), 1);
  t.ok(fstatSync(fd).ino > 0);
  closeFd(fd);
  t.end();
});

t.test('names of error numbers', (t) => {
  t.equal(errnoName(-2), 'ENOENT');
  t.equal(errnoName(-11), 'EAGAIN');
  t.equal(errnoName(-14), 'EFAULT');
  t.equal(errnoName(-12_345), 'errno 12345');
  t.end();
});
