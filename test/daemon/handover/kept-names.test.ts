// The names of what outlives the process: each kind is told from the others, and from a socket unit's.
import t from 'tap';
import {
  fileName,
  fileNumber,
  isKept,
  ledgerName,
  recordName,
  recordNumber,
} from '../../../daemon/handover/kept-names.js';

t.test('a name gives its number back, and no other kind of name does', (t) => {
  t.equal(fileNumber(fileName(7)), 7);
  t.equal(recordNumber(recordName(8)), 8);
  t.equal(fileNumber(recordName(8)), undefined);
  t.equal(recordNumber(fileName(7)), undefined);
  for (const tail of ['', 'x', '1.5', '-1', '1234567890123456']) {
    t.equal(fileNumber(`vhost-rngd.fd.${tail}`), undefined, tail);
    t.equal(recordNumber(`vhost-rngd.front-end.${tail}`), undefined, tail);
  }
  t.end();
});

t.test('what a process of ours has kept is told from sockets by its name', (t) => {
  for (const name of [fileName(1), recordName(1), ledgerName('rng0')]) t.ok(isKept(name), name);
  for (const name of ['control', 'rng0', 'vhost-rngd.socket', 'unknown', 'stored'])
    t.notOk(isKept(name), name);
  t.end();
});

t.test('each device has a ledger of its own, however long its name', (t) => {
  const names = ['a', 'a/b', `/${'é'.repeat(52)}1`, `/${'é'.repeat(52)}2`].map(ledgerName);
  t.equal(new Set(names).size, names.length);
  t.notOk(names.some((name) => name.length > 255 || /[^ -9;-~]/.test(name)));
  t.end();
});
