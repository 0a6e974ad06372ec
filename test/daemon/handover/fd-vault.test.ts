// The vault: one number for each open file, whatever fds stand for it, and nothing forgotten that something still needs.
import fc from 'fast-check';
import t from 'tap';
import { FdVault, type FdStore } from '../../../daemon/handover/fd-vault.js';
import { fileName } from '../../../daemon/handover/kept-names.js';
import { openEventfd } from '../../../shared-memory/eventfd.js';
import { asFd, closeFd, type Fd } from '../../../shared-memory/fd.js';
import * as libc from '../../../shared-memory/libc.js';
import { openMemfd } from '../../../shared-memory/memfd.js';

/** A store as the service manager's is: a file that it has already, under any name, is not taken a second time. */
class OneOfEach implements FdStore {
  readonly kept = new Map<string, Fd>();

  keep(name: string, fd: Fd): void {
    for (const known of this.kept.values()) if (libc.compareFiles(known, fd) === 0) return;
    this.kept.set(name, duplicate(fd));
  }

  forget(name: string): void {
    const fd = this.kept.get(name);
    if (fd !== undefined) closeFd(fd);
    this.kept.delete(name);
  }
}

function duplicate(fd: Fd): Fd {
  return asFd(libc.fcntl(fd, libc.F_DUPFD_CLOEXEC, 0));
}

t.test('an open file has one number, another file of the same kind another', (t) => {
  const store = new OneOfEach();
  const vault = new FdVault(store);
  const eventfd = openEventfd();
  const copy = duplicate(eventfd);
  const memfd = openMemfd('rngd', 4096);
  const number = vault.keep(eventfd);
  t.equal(vault.keep(eventfd), number, 'the same fd again');
  t.equal(vault.keep(copy), number, 'a copy of it');
  t.not(vault.keep(openEventfd()), number, 'another eventfd, which has the same inode');
  t.not(vault.keep(memfd), number);
  t.equal(store.kept.size, 3);
  t.end();
});

t.test('a file stays as long as one fd of it does, and is forgotten at the flush after the last', (t) => {
  const store = new OneOfEach();
  const vault = new FdVault(store);
  const first = openMemfd('rngd', 4096);
  const second = duplicate(first);
  const name = fileName(vault.keep(first));
  vault.keep(second);
  vault.release(first);
  closeFd(first);
  vault.flush();
  t.ok(store.kept.has(name), 'the other fd needs it');
  vault.release(second);
  t.ok(store.kept.has(name), 'a record may still name it');
  vault.flush();
  t.notOk(store.kept.has(name));
  vault.release(second);
  vault.flush();
  t.end();
});

t.test(
  'whatever VMMs pass and let go, every file in use is in the store under its number, and no other is',
  (t) => {
    const files = Array.from({ length: 6 }, (_, i) =>
      i % 2 === 0 ? openEventfd() : openMemfd('rngd', 4096),
    );
    const deed = fc.record({ file: fc.nat(5), pass: fc.boolean() });
    fc.assert(
      fc.property(fc.array(deed, { maxLength: 60 }), (deeds) => {
        const store = new OneOfEach();
        const vault = new FdVault(store);
        const used: { fd: Fd; number: number; file: number }[] = [];
        for (const { file, pass } of deeds) {
          const original = files[file];
          if (original === undefined) return false;
          const at = used.findIndex((one) => one.file === file);
          if (pass) {
            const fd = duplicate(original);
            used.push({ fd, number: vault.keep(fd), file });
          } else if (at >= 0) {
            const [gone] = used.splice(at, 1);
            if (gone === undefined) return false;
            vault.release(gone.fd);
            closeFd(gone.fd);
            vault.flush();
          }
        }
        const right =
          used.every(({ fd, number }) => {
            const kept = store.kept.get(fileName(number));
            return kept !== undefined && libc.compareFiles(kept, fd) === 0;
          }) && store.kept.size === new Set(used.map(({ file }) => file)).size;
        for (const { fd } of used) closeFd(fd);
        for (const name of [...store.kept.keys()]) store.forget(name);
        return right;
      }),
      { numRuns: 300 },
    );
    t.end();
  },
);

t.test('what a process before has kept goes on under its number, and new numbers follow', (t) => {
  const store = new OneOfEach();
  const vault = new FdVault(store);
  const inherited = openMemfd('rngd', 4096);
  store.kept.set(fileName(41), duplicate(inherited));
  vault.adopt(41, inherited);
  const own = duplicate(inherited);
  t.equal(vault.keep(own), 41);
  vault.release(inherited);
  vault.flush();
  t.ok(store.kept.has(fileName(41)), 'a front-end uses it');
  t.equal(vault.keep(openEventfd()), 42);
  vault.release(own);
  vault.flush();
  t.notOk(store.kept.has(fileName(41)));
  t.end();
});
