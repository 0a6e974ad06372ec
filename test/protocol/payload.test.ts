// What the payload encoders refuse to write: a value cut to its field would be a different message on the wire.
// The layouts themselves are held by message.test.ts and its vectors.

import t from 'tap';
import {
  encodeConfig,
  encodeInflight,
  encodeMemTable,
  encodeUuid,
  encodeVringFd,
  encodeVringState,
  PAYLOAD_BYTES,
  payloadSizeFault,
} from '../../protocol/payload.js';

const REGION = { guestPhysAddr: 0n, size: 0x1000n, userAddr: 0n, mmapOffset: 0n };

t.test('values outside their field', (t) => {
  t.throws(() => encodeVringFd({ index: 256, noFd: false }), { message: 'expected 0 to 255, got 256' });
  t.throws(() => encodeVringFd({ index: -1, noFd: false }), RangeError);
  t.throws(() => encodeVringState({ index: 2 ** 32, num: 0 }), RangeError);
  t.throws(() => encodeMemTable({ regions: [] }), { message: 'expected 1 to 8 regions, got 0' });
  t.throws(() => encodeMemTable({ regions: Array.from({ length: 9 }, () => REGION) }), RangeError);
  t.throws(() => encodeMemTable({ regions: [{ ...REGION, size: 2n ** 64n }] }), RangeError);
  t.throws(() => encodeConfig({ offset: 0, size: 3, flags: 0, bytes: new Uint8Array(4) }), RangeError);
  t.throws(() => encodeUuid(new Uint8Array(15)), { message: 'expected 16 bytes, got 15' });
  t.throws(() => encodeUuid(new Uint8Array(17)), RangeError);
  const inflight = {
    mmapSize: 0n,
    mmapOffset: 0n,
    numQueues: 1,
    queueSize: 2 ** 16,
    paddingBytes: 0,
  } as const;
  t.throws(() => encodeInflight(inflight), RangeError);
  t.end();
});

t.test('sizes', (t) => {
  t.equal(payloadSizeFault('SET_VRING_ADDR', 'vringAddr', 40), undefined);
  t.equal(payloadSizeFault('CREATE_CRYPTO_SESSION', 'cryptoSession', 1234), undefined);
  t.match(payloadSizeFault('SET_VRING_ADDR', 'vringAddr', 39), {
    scope: 'connection',
    code: 'payload_size',
    message: 'expected 40 bytes for SET_VRING_ADDR, got 39',
  });
  t.match(payloadSizeFault('GET_INFLIGHT_FD', 'inflight', 0), {
    message: 'expected 20 or 24 bytes for GET_INFLIGHT_FD, got 0',
  });
  t.strictSame(
    { iotlb: PAYLOAD_BYTES.iotlb, memRegion: PAYLOAD_BYTES.memRegion },
    { iotlb: [32], memRegion: [40] },
  );
  t.end();
});
