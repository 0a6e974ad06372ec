// The pool: each byte of a source is handed out at most once, in order, and is wiped as it goes.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { EntropyPool, type SourceSwitch } from '../../../daemon/entropy/pool.js';
import type { EntropySource } from '../../../daemon/entropy/source.js';
import { viewOf } from '../../../shared-memory/ffi.js';

/** Gives consecutive 32-bit numbers, so that a byte that comes twice or in another place is seen. */
class CountingSource implements EntropySource {
  readonly spec: string;
  alarms = 0;
  reads = 0;
  closed = false;
  private nextByte = 0;
  private readonly sizes: readonly number[];

  /** `sizes`: what each read gives at most, in turn; multiples of 4. */
  constructor(sizes: readonly number[], spec = 'counting') {
    this.sizes = sizes;
    this.spec = spec;
  }

  read(address: number, length: number): number {
    const count = Math.min(this.sizes[this.reads++ % this.sizes.length] ?? 0, length);
    if (count === 0) return 0;
    const bytes = viewOf(address, count);
    for (let i = 0; i < count; i++, this.nextByte++) bytes[i] = byteAt(this.nextByte);
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

function poolOf(sources: readonly EntropySource[], onSwitch: SourceSwitch = () => undefined): EntropyPool {
  return new EntropyPool({ sources, mixedWith: undefined }, onSwitch);
}

const sizes = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.integer({ min: 1, max: 2250 }).map((words) => 4 * words) },
    { weight: 1, arbitrary: fc.constant(0) },
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
      const pool = poolOf([source], () => assert.fail('there is one source'));
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

t.test('the first source that has bytes is read, in the order of preference; a switch is told once', (t) => {
  const dry = new CountingSource([0, 0, 0, 0, 0, 0, 16], 'dry');
  const good = new CountingSource([16], 'good');
  const spare = new CountingSource([16], 'spare');
  const switches: string[] = [];
  const pool = poolOf([dry, good, spare], (to, from) => switches.push(`${from} -> ${to}`));
  for (let i = 0; i < 6; i++) {
    t.equal(pool.ready(), 16);
    pool.take(16);
  }
  t.equal(spare.reads, 0);
  t.equal(good.reads, 6);
  t.same(switches, ['dry -> good']);
  t.equal(pool.ready(), 16);
  t.same(switches, ['dry -> good', 'good -> dry'], 'the preferred one serves again when it has bytes');
  pool.close();
  t.end();
});

t.test('after an alarm of any source nothing that waits is used', (t) => {
  const source = new CountingSource([4096, 4, 0]);
  const spare = new CountingSource([0]);
  const pool = poolOf([source, spare]);
  for (const alarmed of [source, spare]) {
    pool.topUp();
    t.equal(pool.ready(), 4096);
    alarmed.alarms++;
    pool.topUp();
    t.equal(pool.ready(), 4, 'only what came after it');
    t.equal(
      pool.memory.bytes.reduce((count, byte) => count + (byte === 0 ? 0 : 1), 0) <= 4,
      true,
      'the rest is wiped',
    );
    pool.take(4);
    t.equal(pool.ready(), 0);
  }
  pool.close();
  t.end();
});

t.test('after an alarm nothing that waits is used, also of a full pool that nobody refills', (t) => {
  const source = new CountingSource([8192, 64, 0]);
  const pool = poolOf([source]);
  t.equal(pool.ready(), 8192);
  pool.take(64);
  pool.topUp();
  source.alarms++;
  pool.topUp();
  t.equal(pool.ready(), 64, 'only what came after it');
  for (let i = 0; i < 64; i++) t.equal(pool.memory.bytes[pool.offset + i], byteAt(8192 + i));
  pool.close();
  t.end();
});

/** Gives the same byte, as often as it is told to. */
class ConstantSource implements EntropySource {
  readonly alarms = 0;
  readonly spec: string;
  left: number;
  private readonly byte: number;

  constructor(spec: string, byte: number, left = Infinity) {
    this.spec = spec;
    this.byte = byte;
    this.left = left;
  }

  read(address: number, length: number): number {
    const count = Math.min(length, this.left);
    if (count > 0) viewOf(address, count).fill(this.byte);
    this.left -= count;
    return count;
  }

  close(): void {
    this.left = 0;
  }
}

t.test(
  'mixing: what is handed out is the XOR of both; what finds no partner is lost, not handed out',
  (t) => {
    const mixedWith = new ConstantSource('kernel', 0x0f, 100);
    const pool = new EntropyPool(
      { sources: [new ConstantSource('device', 0x33)], mixedWith },
      () => undefined,
    );
    t.equal(pool.ready(), 100);
    t.ok(pool.memory.bytes.subarray(0, 100).every((byte) => byte === 0x3c));
    t.ok(
      pool.memory.bytes.subarray(100).every((byte) => byte === 0),
      'no unmixed byte stays in the pool',
    );
    pool.take(100);
    t.equal(pool.ready(), 0, 'without the second nothing is given');
    mixedWith.left = 8;
    t.equal(pool.ready(), 8);
    pool.close();
    t.end();
  },
);

t.test('no source has bytes: none are ready, none are made up', (t) => {
  const pool = poolOf([new CountingSource([0]), new CountingSource([0])]);
  for (let i = 0; i < 5; i++) {
    t.equal(pool.ready(), 0);
    pool.topUp();
  }
  pool.close();
  t.end();
});

t.test('topUp() reads only when a batch fits, and not while the pool is full', (t) => {
  const source = new CountingSource([9000]);
  const pool = poolOf([source]);
  pool.topUp();
  t.equal(source.reads, 1);
  for (let i = 0; i < 10; i++) pool.topUp();
  t.equal(source.reads, 1, 'full');
  for (let i = 0; i < 39; i++) {
    pool.ready();
    pool.take(64);
    pool.topUp();
  }
  t.equal(source.reads, 1, '2,496 bytes are free');
  pool.take(64);
  pool.topUp();
  t.equal(source.reads, 2);
  pool.close();
  t.end();
});
