// What a process before has left: taken device by device, and refused device by device.
import t from 'tap';
import { type FrontendRecord, RECORD_VERSION } from '../../../daemon/handover/frontend-record.js';
import { sortInherited } from '../../../daemon/handover/inherited.js';
import { fileName, ledgerName, type NamedFd, recordName } from '../../../daemon/handover/kept-names.js';
import { RecordFile } from '../../../daemon/handover/record-file.js';
import { openEventfd } from '../../../shared-memory/eventfd.js';
import type { Fd } from '../../../shared-memory/fd.js';
import { openMemfd } from '../../../shared-memory/memfd.js';

function recordOf(device: string, socket: number, kick: number | null): FrontendRecord {
  return {
    version: RECORD_VERSION,
    device,
    socket,
    state: {
      features: '0x0',
      protocolFeatures: '0x0',
      owned: true,
      status: '0x0',
      regions: [],
      backendReq: null,
      vring: {
        size: 4,
        base: 0,
        addresses: null,
        started: true,
        enabled: false,
        running: false,
        faulted: false,
        hasServed: false,
        kick,
        call: null,
        err: null,
      },
    },
    message: { bytes: '', fds: [], ahead: [], inSocket: 0 },
    replies: { file: socket, end: 0 },
  };
}

function recordFd(value: unknown): Fd {
  const file = RecordFile.create();
  file.write(typeof value === 'string' ? value : JSON.stringify(value));
  return file.fd;
}

function sort(kept: readonly NamedFd[], devices: readonly string[]) {
  return sortInherited(kept, new Set(devices));
}

const files: readonly NamedFd[] = [1, 2, 3].map((number) => ({ name: fileName(number), fd: openEventfd() }));

t.test('front-ends, ledgers and open files find their devices', (t) => {
  const memory = openMemfd('rngd', 4096);
  const { frontEnds, ledgers, surplus, refused } = sort(
    [
      ...files,
      { name: recordName(7), fd: recordFd(recordOf('a', 1, 2)) },
      { name: recordName(9), fd: recordFd(recordOf('a', 3, null)) },
      { name: ledgerName('a'), fd: memory },
    ],
    ['a', 'b'],
  );
  t.same(
    frontEnds.get('a')?.map(({ number }) => number),
    [7, 9],
  );
  t.equal(ledgers.get('a'), memory);
  t.same(surplus, []);
  t.same(refused, []);
  t.end();
});

/** What is wrong with one record, and what the log says of it. */
const REFUSED: readonly (readonly [string, unknown, RegExp])[] = [
  ['another version', { ...recordOf('a', 1, 2), version: RECORD_VERSION + 1 }, /a record of this version/],
  ['no JSON', 'rubbish', /a record of this version/],
  ['a field that is not known', { ...recordOf('a', 1, 2), more: 1 }, /a record of this version/],
  ['a device that is gone', recordOf('gone', 1, 2), /got gone/],
  ['a file that is missing', recordOf('a', 1, 4), /number 4/],
];

for (const [title, value, line] of REFUSED) {
  t.test(`${title}: that front-end is refused, and told, and no other`, (t) => {
    const bad = { name: recordName(5), fd: recordFd(value) };
    const { frontEnds, surplus, refused } = sort(
      [...files, bad, { name: recordName(6), fd: recordFd(recordOf('b', 3, null)) }],
      ['a', 'b'],
    );
    t.same([...frontEnds.keys()], ['b']);
    t.same(surplus, [bad]);
    t.equal(refused.length, 1);
    t.match(refused[0], line);
    t.end();
  });
}

t.test('a record that was never written is refused; what nobody knows is surplus', (t) => {
  const blank = { name: recordName(5), fd: RecordFile.create().fd };
  const strange = { name: 'vhost-rngd.of-another-time', fd: openEventfd() };
  const { surplus, refused } = sort([blank, strange, { name: ledgerName('gone'), fd: strange.fd }], ['a']);
  t.equal(surplus.length, 3);
  t.equal(refused.length, 1);
  t.end();
});
