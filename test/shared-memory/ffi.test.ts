// Prepared calls: right arguments and results, and nothing allocated for a call, which is what the data path is built on.
import { spawnSync } from 'node:child_process';
import { constants } from 'node:os';
import t from 'tap';
import { hasSymbol, NativeMemory, openLibrary, PreparedCall, viewOf } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';

t.test('arguments of all widths arrive, results of all kinds come back', (t) => {
  const memory = new NativeMemory(64);
  memory.bytes.write('abcdefgh\0', 'latin1');
  const strlen = new PreparedCall('strlen', 'size', ['pointer']);
  strlen.setWide(0, memory.address);
  t.equal(strlen.call(), 8);
  const memchr = new PreparedCall('memchr', 'pointer', ['pointer', 'int', 'size']);
  memchr.setWide(0, memory.address);
  memchr.setInt(1, 'e'.charCodeAt(0));
  memchr.setWide(2, 8);
  t.equal(memchr.callForAddress(), memory.address + 4);
  const labs = new PreparedCall('labs', 'long', ['long']);
  labs.setWide(0, 2 ** 53 - 1);
  t.equal(labs.callForAddress(), 2 ** 53 - 1, '64 bits whole');
  const abs = new PreparedCall('abs', 'int', ['int']);
  abs.setInt(0, -5);
  t.equal(abs.call(), 5);
  const flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS;
  t.equal(libc.mmap({ length: 0, protection: 0, flags, fd: -1, offset: 0 }), -constants.errno.EINVAL);
  t.throws(() => new PreparedCall('no_such_function', 'int', []));
  t.end();
});

t.test('a call into a library that is loaded by its name', (t) => {
  const library = openLibrary('libc.so.6');
  if (library === undefined) throw new Error('libc.so.6 is what glibc is called');
  t.ok(hasSymbol('labs', library));
  t.notOk(hasSymbol('no_such_function', library));
  const labs = new PreparedCall('labs', 'long', ['long'], library);
  labs.setWide(0, 77);
  t.equal(labs.call(), 77);
  t.throws(() => new PreparedCall('no_such_function', 'int', [], library));
  t.equal(openLibrary('libno-such-library.so.1'), undefined);
  t.ok(hasSymbol('getrandom'));
  t.notOk(hasSymbol('no_such_function'));
  t.end();
});

t.test('a view shows native memory, from 1 byte to less than 1 GiB', (t) => {
  const memory = new NativeMemory(16);
  memory.bytes[7] = 42;
  t.equal(viewOf(memory.address + 7, 1)[0], 42);
  viewOf(memory.address, 16)[3] = 7;
  t.equal(memory.bytes[3], 7);
  for (const length of [0, -1, 2 ** 30, NaN]) t.throws(() => viewOf(memory.address, length), RangeError);
  t.end();
});

t.test('wide values are stored as 64 bits, exact up to 2^53', (t) => {
  const memory = new NativeMemory(8);
  for (const value of [0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 47 - 1, 2 ** 53 - 1]) {
    memory.setWide(0, value);
    t.equal(memory.bytes.readBigUInt64LE(), BigInt(value));
  }
  t.end();
});

/** Calls in a process of its own whose collector reports each run. */
const CALLS = 100_000;
/** V8's smallest object on the heap, a number that is no small integer. */
const SMALLEST_OBJECT_BYTES = 16;
const SCRIPT = (body: string) => `
  import { openEventfd, signal, readEventfd } from '${new URL('../../shared-memory/eventfd.js', import.meta.url).href}';
  const fd = openEventfd();
  const values = [];
  const work = () => { ${body} };
  for (let i = 0; i < 20_000; i++) work();
  values.length = 0;
  gc();
  console.log('BEGIN');
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < ${CALLS}; i++) work();
  console.log('END', process.memoryUsage().heapUsed - before);
`;

function collections(body: string): { runs: number; grown: number } {
  const args = ['--expose-gc', '--trace-gc', '--input-type=module', '-e', SCRIPT(body)];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  const between = /BEGIN\n([\s\S]*)END (-?\d+)/.exec(stdout);
  if (status !== 0 || between === null) throw new Error(stderr + stdout);
  return { runs: (between[1]?.match(/Scavenge|Mark-Compact/g) ?? []).length, grown: Number(between[2]) };
}

t.test(`${CALLS} signals and reads of an eventfd allocate nothing`, (t) => {
  const { runs, grown } = collections('signal(fd); readEventfd(fd);');
  t.equal(runs, 0, 'the garbage collector did not run');
  t.ok(grown < (SMALLEST_OBJECT_BYTES / 2) * CALLS, `${grown} bytes, less than half an object for each call`);
  t.end();
});

t.test('the measure itself: one small object for each call is seen', (t) => {
  const { runs, grown } = collections('signal(fd); values.push({ a: 1, b: 2 });');
  t.ok(runs > 0 || grown > SMALLEST_OBJECT_BYTES * CALLS, `${runs} collections, ${grown} bytes`);
  t.end();
});
