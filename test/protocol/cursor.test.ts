// Cursor and Writer against DataView and against their own bounds.

import assert from 'node:assert/strict';
import { endianness } from 'node:os';
import fc from 'fast-check';
import t from 'tap';
import { Cursor, NATIVE_LITTLE_ENDIAN, Writer } from '../../protocol/cursor.js';

type Step =
  | { readonly kind: 'u8' | 'u16' | 'u32'; readonly value: number }
  | { readonly kind: 'u64'; readonly value: bigint }
  | { readonly kind: 'bytes'; readonly value: Uint8Array };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('u8' as const), value: fc.integer({ min: 0, max: 0xff }) }),
  fc.record({ kind: fc.constant('u16' as const), value: fc.integer({ min: 0, max: 0xffff }) }),
  fc.record({ kind: fc.constant('u32' as const), value: fc.integer({ min: 0, max: 0xffff_ffff }) }),
  fc.record({ kind: fc.constant('u64' as const), value: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }) }),
  fc.record({ kind: fc.constant('bytes' as const), value: fc.uint8Array({ maxLength: 9 }) }),
);

function sizeOf({ kind, value }: Step): number {
  return kind === 'bytes' ? value.length : { u8: 1, u16: 2, u32: 4, u64: 8 }[kind];
}

function readStep(cursor: Cursor, { kind, value }: Step): number | bigint | Uint8Array {
  return kind === 'bytes' ? cursor.bytes(value.length) : cursor[kind]();
}

function writeStep(writer: Writer, { kind, value }: Step): void {
  if (kind === 'bytes') writer.bytes(value);
  else if (kind === 'u64') writer.u64(value);
  else writer[kind](value);
}

function writeAll(steps: readonly Step[]): Uint8Array {
  const writer = new Writer(steps.reduce((sum, one) => sum + sizeOf(one), 0));
  for (const one of steps) writeStep(writer, one);
  return writer.finish();
}

t.test('the byte order is that of the machine', (t) => {
  t.equal(NATIVE_LITTLE_ENDIAN, endianness() === 'LE');
  const words = new Uint8Array(Uint32Array.of(0x0102_0304, 0xfffe_fdfc).buffer);
  t.equal(new Cursor(words).u32(), 0x0102_0304);
  t.same(new Writer(8).u32(0x0102_0304).u32(0xfffe_fdfc).finish(), words);
  t.equal(new Cursor(new Uint8Array(Uint16Array.of(0x0102).buffer)).u16(), 0x0102);
  const long = 0x0102_0304_0506_0708n;
  t.equal(new Cursor(new Uint8Array(BigUint64Array.of(long).buffer)).u64(), long);
  t.same(new Writer(8).u64(long).finish(), new Uint8Array(BigUint64Array.of(long).buffer));
  t.end();
});

t.test('what was written is read, to the last byte', (t) => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
      const cursor = new Cursor(writeAll(steps));
      for (const one of steps) assert.deepEqual(readStep(cursor, one), one.value);
      assert.equal(cursor.remaining, 0);
    }),
  );
  t.end();
});

t.test('never reads outside: of its bytes only, and nothing is consumed by a refused read', (t) => {
  const POISON = 0xee;
  fc.assert(
    fc.property(
      fc.nat(24),
      fc.nat(12),
      fc.array(step, { minLength: 1, maxLength: 20 }),
      (size, before, steps) => {
        const around = new Uint8Array(before + size + 16).fill(POISON);
        const cursor = new Cursor(around.subarray(before, before + size).fill(0));
        let left = size;
        for (const one of steps) {
          if (sizeOf(one) > left) {
            assert.throws(() => readStep(cursor, one), RangeError);
          } else {
            const zero = { u8: 0, u16: 0, u32: 0, u64: 0n, bytes: new Uint8Array(sizeOf(one)) }[one.kind];
            assert.deepEqual(readStep(cursor, one), zero);
            left -= sizeOf(one);
          }
          assert.equal(cursor.remaining, left);
        }
      },
    ),
  );
  t.end();
});

t.test('bytes are a copy, and a count that is none is refused', (t) => {
  const source = Uint8Array.of(1, 2, 3);
  const copy = new Cursor(source).bytes(3);
  source.fill(9);
  t.same(copy, Uint8Array.of(1, 2, 3));
  for (const count of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 4]) {
    t.throws(() => new Cursor(source).bytes(count), RangeError, `count ${count}`);
  }
  t.end();
});

t.test('64 bits are exact beyond 2^53', (t) => {
  for (const value of [2n ** 53n + 1n, 2n ** 63n + 1n, 2n ** 64n - 1n]) {
    t.equal(new Cursor(new Writer(8).u64(value).finish()).u64(), value);
  }
  t.end();
});

t.test('the writer refuses a value that does not fit its field', (t) => {
  t.throws(() => new Writer(8).u8(0x100), RangeError);
  t.throws(() => new Writer(8).u16(0x1_0000), RangeError);
  t.throws(() => new Writer(8).u32(0x1_0000_0000), RangeError);
  t.throws(() => new Writer(8).u64(2n ** 64n), RangeError);
  t.throws(() => new Writer(8).u64(-1n), RangeError);
  for (const value of [-1, 1.5, Number.NaN]) {
    t.throws(() => new Writer(8).u8(value), RangeError, `u8 ${value}`);
    t.throws(() => new Writer(8).u16(value), RangeError, `u16 ${value}`);
    t.throws(() => new Writer(8).u32(value), RangeError, `u32 ${value}`);
  }
  t.end();
});

t.test('the writer holds as many bytes as were announced, no more and no fewer', (t) => {
  t.throws(() => new Writer(3).u32(0), { message: 'expected at most 3 bytes at offset 0, got 4' });
  t.throws(() => new Writer(3).u16(0).bytes(new Uint8Array(2)), RangeError);
  t.throws(() => new Writer(3).zeros(4), RangeError);
  t.throws(() => new Writer(3).u16(0).finish(), { message: 'expected 3 bytes, got 2' });
  t.same(new Writer(3).u8(1).zeros(2).finish(), Uint8Array.of(1, 0, 0));
  t.end();
});
