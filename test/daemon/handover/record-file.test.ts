// The record's file: the last whole record is found, also when a writer was killed within the next one.
import { writeSync } from 'node:fs';
import t from 'tap';
import { MAX_RECORD_BYTES, RecordFile } from '../../../daemon/handover/record-file.js';
import { openMemfd } from '../../../shared-memory/memfd.js';

t.test('the last record is found, by itself and by who goes on writing', (t) => {
  const file = RecordFile.create();
  t.equal(RecordFile.open(file.fd), undefined, 'none yet');
  for (const text of ['first', 'second, longer', '', 'third ä']) {
    file.write(text);
    t.equal(RecordFile.open(file.fd)?.text, text);
  }
  const again = RecordFile.open(file.fd)?.file;
  for (const text of ['fourth', 'fifth', 'sixth']) {
    again?.write(text);
    t.equal(RecordFile.open(file.fd)?.text, text);
  }
  t.end();
});

t.test('a writer that is killed anywhere within a record leaves the one before', (t) => {
  const before = 'the record before'.repeat(1000);
  const after = 'the record after'.repeat(1200);
  const whole = RecordFile.create();
  whole.write('the one that made room');
  whole.write(before);
  whole.write(after);
  // What the last write has changed, area by area: the text of area 1, then its header.
  const area = 512 * 1024;
  for (const cut of [0, 1, 4096, 8191, Buffer.byteLength(after)]) {
    const file = RecordFile.create();
    file.write('the one that made room');
    file.write(before);
    writeSync(file.fd, Buffer.from(after).subarray(0, cut), 0, cut, area + 16);
    t.equal(RecordFile.open(file.fd)?.text, before, `after ${cut} bytes`);
  }
  t.end();
});

t.test('room has an end, and what is no record is none', (t) => {
  const file = RecordFile.create();
  file.write('x'.repeat(MAX_RECORD_BYTES));
  t.equal(RecordFile.open(file.fd)?.text.length, MAX_RECORD_BYTES);
  t.throws(() => file.write('x'.repeat(MAX_RECORD_BYTES + 1)), RangeError);
  t.equal(RecordFile.open(openMemfd('rngd', 4096)), undefined, 'too short and blank');
  const other = openMemfd('rngd', 2 * 512 * 1024);
  writeSync(other, Buffer.alloc(64, 0xff), 0, 64, 0);
  t.equal(RecordFile.open(other), undefined);
  t.end();
});
