// Whole messages, header and payload, byte for byte. Spec: vhost-user, "Header"; "REPLY_ACK" for the u64 of an answer.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { NATIVE_LITTLE_ENDIAN } from '../../protocol/cursor.js';
import { Fault } from '../../protocol/fault.js';
import { decodeHeader } from '../../protocol/header.js';
import {
  decodeU64,
  decodeVringState,
  encodeReply,
  encodeRequest,
  encodeU64Reply,
  encodeVringStateReply,
} from '../../protocol/reply.js';
import { u64 } from './messages.js';
import { fromHex } from './vectors.js';

t.test('wire vectors', { skip: NATIVE_LITTLE_ENDIAN ? false : 'vectors are little-endian' }, (t) => {
  const features = fromHex('01000000 05000000 08000000 0000007001000000');
  t.strictSame(encodeU64Reply(1, 0x1_7000_0000n), features);
  t.strictSame(encodeVringStateReply(11, 0, 0xfffe), fromHex('0b000000 05000000 08000000 00000000 feff0000'));
  t.strictSame(encodeReply(24, new Uint8Array(0)), fromHex('18000000 05000000 00000000'));
  t.strictSame(encodeReply(28, Uint8Array.of(1, 2)), fromHex('1c000000 05000000 02000000 0102'));
  t.strictSame(
    encodeRequest(3, new Uint8Array(0), { needReply: false }),
    fromHex('03000000 01000000 00000000'),
  );
  t.strictSame(
    encodeRequest(26, Uint8Array.of(255), { needReply: true }),
    fromHex('1a000000 09000000 01000000 ff'),
  );
  t.equal(decodeU64(fromHex('0100000000002080')), 0x8020_0000_0000_0001n);
  t.strictSame(decodeVringState(fromHex('01000000 feff0000')), { index: 1, num: 0xfffe });
  t.end();
});

t.test('an answer is read as it was written', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0xffff_ffff }), u64, (request, value) => {
      const message = encodeU64Reply(request, value);
      assert.deepEqual(decodeHeader(message), { request, reply: true, needReply: false, payloadBytes: 8 });
      assert.equal(decodeU64(message.subarray(12)), value);
    }),
  );
  t.end();
});

t.test('an answer of another size is a fault of the connection', (t) => {
  for (const size of [0, 7, 9, 4096]) {
    for (const fault of [decodeU64(new Uint8Array(size)), decodeVringState(new Uint8Array(size))]) {
      t.ok(fault instanceof Fault, `${size} bytes`);
      t.match(fault, { scope: 'connection', code: 'payload_size' });
    }
  }
  t.end();
});

t.test('4096 bytes are the most', (t) => {
  t.equal(encodeReply(26, new Uint8Array(4096)).length, 4108);
  t.throws(() => encodeReply(26, new Uint8Array(4097)), RangeError);
  t.throws(() => encodeRequest(26, new Uint8Array(4097), { needReply: false }), RangeError);
  t.end();
});
