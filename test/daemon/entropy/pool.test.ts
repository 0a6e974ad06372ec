// The pool: each byte of a source is handed out at most once, in order, and is wiped as it goes.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { EntropyPool } from '../../../daemon/entropy/pool.js';
import type { EntropySource } from '../../../daemon/entropy/source.js';
import { viewOf } from '../../../shared-memory/ffi.js';

/** Gives consecutive 32-bit numbers, so that a byte that comes twice or in another place is seen. */
class CountingSource implements EntropySource {
  readonly spec: string;
  reads = 0;
  closed = false;
  private nextByte = 0;
  private readonly sizes: readonly number[];

  /** `sizes`: what each read gives at most, in turn; a negative number is an error. */
  constructor(sizes: readonly number[], spec = 'counting') {
    this.sizes = sizes;
    this.spec = spec;
  }

  read(address: number, length: number): number {
    const size = this.sizes[this.reads++ % this.sizes.length] ?? 0;
    if (size <= 0) return size;
    const count = Math.min(size, length);
    const bytes = viewOf(address, count);
    // The pool drops odd bytes at the end of a read, so numbers begin anew with each.
    this.nextByte = Math.ceil(this.nextByte / 4) * 4;
    for (let i = 0; i < count; i++, this.nextByte++) bytes[i] = byteAt(this.nextByte);
    if (count % 4 !== 0) this.nextByte -= count % 4;
    return count;
  }

  close(): void {
    this.closed = true;
  }
}

/** Byte `at` of the source: of the numbers 1, 2, 3 and so on, in 4 bytes each. */
function byteAt(at: number): number {
  return ((1 + (at >> 2)) >>> (8 * (at & 3))) & 0xff;
}

const sizes = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.integer({ min: 4, max: 9000 }) },
    { weight: 1, arbitrary: fc.constantFrom(0, 1, 3) },
  ),
  { minLength: 1, maxLength: 6 },
);
const takes = fc.array(
  fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 9000 }), fc.constant(0)),
  {
    maxLength: 200,
  },
);

t.test('random reads and requests, odd lengths too: in order, never twice, wiped', (t) => {
  let bytes = 0;
  fc.assert(
    fc.property(sizes, takes, (given, wanted) => {
      const source = new CountingSource(given);
      const pool = new EntropyPool([source], () => assert.fail('no read failed'));
      let at = 0;
      for (const want of wanted) {
        if (want === 0) {
          pool.topUp();
          continue;
        }
        const length = Math.min(want, pool.ready());
        const { offset } = pool;
        if (length === 0) continue;
        assert.equal(offset % 4, 0, 'aligned');
        for (let i = 0; i < length; i++) assert.equal(pool.memory.bytes[offset + i], byteAt(at + i));
        pool.take(length);
        for (let i = 0; i < length; i++) assert.equal(pool.memory.bytes[offset + i], 0, 'wiped');
        // An odd end is dropped, not given to the next.
        at += Math.ceil(length / 4) * 4;
        bytes += length;
      }
      pool.close();
    }),
    { numRuns: 300 },
  );
  t.ok(bytes > 100_000, `${bytes} bytes`);
  t.end();
});

t.test(
  'the first source that has bytes is read, in the order of preference; a failure is told each time',
  (t) => {
    const failed = new CountingSource([-5], 'failed');
    const dry = new CountingSource([0], 'dry');
    const good = new CountingSource([16], 'good');
    const spare = new CountingSource([16], 'spare');
    const failures: (readonly [string, number])[] = [];
    const pool = new EntropyPool([failed, dry, good, spare], (source, result) =>
      failures.push([source.spec, result]),
    );
    for (let i = 0; i < 3; i++) {
      t.equal(pool.ready(), 16);
      pool.take(16);
    }
    t.equal(spare.reads, 0);
    t.equal(good.reads, 3);
    t.same(failures, [
      ['failed', -5],
      ['failed', -5],
      ['failed', -5],
    ]);
    pool.close();
    t.end();
  },
);

t.test('no source has bytes: none are ready, none are made up', (t) => {
  for (const given of [[0], [-5], [1], [3]]) {
    const pool = new EntropyPool([new CountingSource(given)], () => undefined);
    for (let i = 0; i < 5; i++) {
      t.equal(pool.ready(), 0);
      pool.topUp();
    }
    pool.close();
  }
  t.end();
});

t.test('topUp() reads only when a batch fits, and not while the pool is full', (t) => {
  const source = new CountingSource([9000]);
  const pool = new EntropyPool([source], () => undefined);
  pool.topUp();
  t.equal(source.reads, 1);
  for (let i = 0; i < 10; i++) pool.topUp();
  t.equal(source.reads, 1, 'full');
  for (let i = 0; i < 31; i++) {
    pool.ready();
    pool.take(64);
    pool.topUp();
  }
  t.equal(source.reads, 1, '1,984 bytes are free');
  pool.take(64);
  pool.topUp();
  t.equal(source.reads, 2);
  pool.close();
  t.end();
});
