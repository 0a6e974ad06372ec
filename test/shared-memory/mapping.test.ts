// Mappings as the kernel sees them: memory of guests, and locked memory for what must stay secret.
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import t from 'tap';
import { closeFd } from '../../shared-memory/fd.js';
import { Mapping, PAGE_BYTES } from '../../shared-memory/mapping.js';
import { openMemfd } from '../../shared-memory/memfd.js';

/** The kernel's flags of the mapping at an address. Source: proc(5), VmFlags of /proc/self/smaps. */
function vmFlags(address: number): string[] {
  const text = readFileSync('/proc/self/smaps', 'utf8');
  let within = false;
  for (const line of text.split('\n')) {
    const range = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line);
    if (range !== null)
      within = parseInt(range[1] ?? '', 16) <= address && address < parseInt(range[2] ?? '', 16);
    if (within && line.startsWith('VmFlags:')) return line.slice(8).trim().split(' ');
  }
  return [];
}

t.test('a file: shared, writable, out of core files, not reserved', (t) => {
  const fd = openMemfd('rngd', 4 * PAGE_BYTES);
  const first = Mapping.ofFile(fd, 0, 4 * PAGE_BYTES, false);
  const second = Mapping.ofFile(fd, PAGE_BYTES, PAGE_BYTES, true);
  if (typeof first === 'number' || typeof second === 'number') throw new Error('not mapped');
  first.view(PAGE_BYTES + 5, 3).write('abc');
  t.equal(second.view(5, 3).toString(), 'abc', 'both see the same bytes');
  const flags = vmFlags(first.address);
  for (const flag of ['rd', 'wr', 'sh', 'dd', 'nr']) t.ok(flags.includes(flag), flag);
  first.unmap();
  second.unmap();
  t.same(vmFlags(first.address), []);
  closeFd(fd);
  t.end();
});

t.test('a refusal is a negated error number', (t) => {
  const fd = openMemfd('rngd', PAGE_BYTES);
  t.equal(Mapping.ofFile(fd, 1, PAGE_BYTES, false), -constants.errno.EINVAL);
  closeFd(fd);
  t.equal(Mapping.ofFile(fd, 0, PAGE_BYTES, false), -constants.errno.EBADF);
  t.end();
});

t.test('views lie inside their mapping', (t) => {
  const fd = openMemfd('rngd', PAGE_BYTES);
  const mapping = Mapping.ofFile(fd, 0, PAGE_BYTES, false);
  if (typeof mapping === 'number') throw new Error('not mapped');
  t.equal(mapping.view(0, PAGE_BYTES).length, PAGE_BYTES);
  t.equal(mapping.view(PAGE_BYTES - 1, 1).length, 1);
  for (const [offset, length] of [
    [0, PAGE_BYTES + 1],
    [PAGE_BYTES, 1],
    [-1, 2],
    [0, 0],
    [0, -1],
    [NaN, 1],
    [0, NaN],
  ] as const) {
    t.throws(() => mapping.view(offset, length), RangeError, `${length} bytes at ${offset}`);
  }
  mapping.unmap();
  closeFd(fd);
  t.end();
});

t.test('memory for secrets: zeroed, wiped on fork, out of core files, locked', (t) => {
  const { mapping, locked } = Mapping.forSecrets(2 * PAGE_BYTES);
  t.ok(mapping.view(0, 2 * PAGE_BYTES).every((byte) => byte === 0));
  const flags = vmFlags(mapping.address);
  for (const flag of ['rd', 'wr', 'dd', 'wf']) t.ok(flags.includes(flag), flag);
  t.notOk(flags.includes('sh'), 'private');
  t.equal(flags.includes('lo'), locked, 'what is said of locking is true');
  mapping.unmap();
  t.end();
});
