// vhost-user, "Message Specification", "Header". Rows of bad-input.md: 8, 9, 11, 12, 13.
// Leaves out what comes after the header and what the time limits are: those are the connection's.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { Fault } from '../../protocol/fault.js';
import { decodeHeader, encodeHeader, HEADER_BYTES, MAX_PAYLOAD_BYTES } from '../../protocol/header.js';
import { NATIVE_LITTLE_ENDIAN } from '../../protocol/cursor.js';
import { fromHex } from './vectors.js';

const VALID = [
  ['01000000 01000000 00000000', { request: 1, reply: false, needReply: false, payloadBytes: 0 }],
  ['05000000 09000000 28000000', { request: 5, reply: false, needReply: true, payloadBytes: 40 }],
  ['01000000 05000000 08000000', { request: 1, reply: true, needReply: false, payloadBytes: 8 }],
  ['05000000 0d000000 08000000', { request: 5, reply: true, needReply: true, payloadBytes: 8 }],
  ['1a000000 01000000 00100000', { request: 26, reply: false, needReply: false, payloadBytes: 4096 }], // row 9
  ['00000000 01000000 00000000', { request: 0, reply: false, needReply: false, payloadBytes: 0 }], // row 13
  ['ffffffff 01000000 00000000', { request: 0xffff_ffff, reply: false, needReply: false, payloadBytes: 0 }],
] as const;

const INVALID = [
  ['01000000 00000000 00000000', 'header_version', 'expected version 1, got 0'],
  ['01000000 02000000 00000000', 'header_version', 'expected version 1, got 2'],
  ['01000000 03000000 00000000', 'header_version', 'expected version 1, got 3'],
  ['01000000 11000000 00000000', 'header_flags', 'expected no flag outside 0xf, got 0x11'], // row 11
  ['01000000 01000080 00000000', 'header_flags', 'expected no flag outside 0xf, got 0x80000001'],
  ['01000000 01000000 01100000', 'payload_too_large', 'expected a payload of at most 4096 bytes, got 4097'], // row 9
  [
    '01000000 01000000 ffffffff',
    'payload_too_large',
    'expected a payload of at most 4096 bytes, got 4294967295',
  ], // row 8
] as const;

t.equal(HEADER_BYTES, 12);
t.equal(MAX_PAYLOAD_BYTES, 4096);

t.test('wire vectors', { skip: NATIVE_LITTLE_ENDIAN ? false : 'vectors are little-endian' }, (t) => {
  for (const [hex, header] of VALID) {
    t.strictSame(decodeHeader(fromHex(hex)), header, hex);
    t.strictSame(encodeHeader(header), fromHex(hex), hex);
  }
  for (const [hex, code, message] of INVALID) {
    const fault = decodeHeader(fromHex(hex));
    t.ok(fault instanceof Fault, hex);
    t.match(fault, { scope: 'connection', code, message }, hex);
  }
  t.end();
});

t.test('each of the 28 reserved flag bits is refused', (t) => {
  for (let bit = 4; bit < 32; bit++) {
    const bytes = new Uint8Array(Uint32Array.of(1, (1 | (1 << bit)) >>> 0, 0).buffer);
    t.match(decodeHeader(bytes), { scope: 'connection', code: 'header_flags' }, `bit ${bit}`);
  }
  t.end();
});

t.test('a short header is refused; bytes after a header are left alone', (t) => {
  const whole = fromHex('01000000 01000000 00000000');
  for (let size = 0; size < HEADER_BYTES; size++) {
    t.match(
      decodeHeader(whole.subarray(0, size)),
      { scope: 'connection', code: 'header_size' },
      `${size} bytes`,
    );
  }
  const header = encodeHeader({ request: 7, reply: false, needReply: true, payloadBytes: 3 });
  const longer = Uint8Array.from([...header, 0xff, 0xff, 0xff]);
  t.strictSame(decodeHeader(longer), { request: 7, reply: false, needReply: true, payloadBytes: 3 });
  t.end();
});

t.test('every accepted header is written again as it came; others are faults of the connection', (t) => {
  const flags = fc.oneof(fc.integer({ min: 0, max: 0xffff_ffff }), fc.integer({ min: 0, max: 0x1f }));
  const size = fc.oneof(fc.integer({ min: 0, max: 0xffff_ffff }), fc.integer({ min: 0, max: 5000 }));
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0xffff_ffff }), flags, size, (request, flagBits, payloadBytes) => {
      const bytes = new Uint8Array(Uint32Array.of(request, flagBits, payloadBytes).buffer);
      const acceptable = flagBits < 16 && flagBits % 4 === 1 && payloadBytes <= 4096;
      const header = decodeHeader(bytes);
      if (header instanceof Fault) {
        assert.equal(header.scope, 'connection');
        assert.equal(acceptable, false);
      } else {
        assert.deepEqual(encodeHeader(header), bytes);
        assert.equal(acceptable, true);
      }
    }),
  );
  t.end();
});

t.test('a header that no peer would accept is not written', (t) => {
  const header = { request: 1, reply: false, needReply: false, payloadBytes: 0 };
  t.throws(() => encodeHeader({ ...header, payloadBytes: 4097 }), RangeError);
  t.throws(() => encodeHeader({ ...header, payloadBytes: -1 }), RangeError);
  t.throws(() => encodeHeader({ ...header, request: 2 ** 32 }), RangeError);
  t.end();
});
