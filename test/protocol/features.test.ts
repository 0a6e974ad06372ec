// virtio-v1.3 §6 and vhost-user, "Protocol features": the numbers, written out a second time.

import t from 'tap';
import {
  has,
  maskOf,
  ProtocolFeature,
  protocolFeatureNames,
  VirtioFeature,
  virtioFeatureNames,
} from '../../protocol/features.js';

const VIRTIO_BITS =
  '24 NOTIFY_ON_EMPTY, 26 LOG_ALL, 27 ANY_LAYOUT, 28 INDIRECT_DESC, 29 EVENT_IDX, 30 PROTOCOL_FEATURES, 32 VERSION_1, ' +
  '33 ACCESS_PLATFORM, 34 RING_PACKED, 35 IN_ORDER, 36 ORDER_PLATFORM, 37 SR_IOV, 38 NOTIFICATION_DATA, ' +
  '39 NOTIF_CONFIG_DATA, 40 RING_RESET';

const PROTOCOL_BITS =
  'MQ LOG_SHMFD RARP REPLY_ACK MTU BACKEND_REQ CROSS_ENDIAN CRYPTO_SESSION PAGEFAULT CONFIG BACKEND_SEND_FD ' +
  'HOST_NOTIFIER INFLIGHT_SHMFD RESET_DEVICE INBAND_NOTIFICATIONS CONFIGURE_MEM_SLOTS STATUS XEN_MMAP SHARED_OBJECT ' +
  'DEVICE_STATE GET_VRING_BASE_INFLIGHT GPA_ADDRESSES SHMEM';

t.test('the numbers of the specifications', (t) => {
  const virtio = Object.entries(VirtioFeature).map(([name, bit]) => `${bit} ${name}`);
  t.equal(virtio.join(', '), VIRTIO_BITS);
  const protocol = Object.fromEntries(PROTOCOL_BITS.split(' ').map((name, bit) => [name, bit]));
  t.strictSame({ ...ProtocolFeature }, protocol);
  t.end();
});

t.test('masks', (t) => {
  t.equal(maskOf(), 0n);
  t.equal(maskOf(28, 29, 30, 32), 0x1_7000_0000n);
  t.equal(maskOf(63, 63), 0x8000_0000_0000_0000n);
  t.equal(has(0x1_7000_0000n, VirtioFeature.VERSION_1), true);
  t.equal(has(0x1_7000_0000n, 31), false);
  t.equal(has(0n, 0), false);
  t.equal(has(1n, ProtocolFeature.MQ), true);
  t.equal(has(0x8000_0000_0000_0000n, 63), true);
  t.equal(has(0x8000_0000_0000_0000n, 62), false);
  t.end();
});

t.test('names, lowest bit first', (t) => {
  t.strictSame(virtioFeatureNames(0n), []);
  const seen = ['INDIRECT_DESC', 'EVENT_IDX', 'PROTOCOL_FEATURES', 'VERSION_1'];
  t.strictSame(virtioFeatureNames(0x1_7000_0000n), seen);
  t.strictSame(virtioFeatureNames(maskOf(0, 63, 40)), ['bit 0', 'RING_RESET', 'bit 63']);
  t.strictSame(protocolFeatureNames(9n), ['MQ', 'REPLY_ACK']);
  t.strictSame(protocolFeatureNames(maskOf(23, 22)), ['SHMEM', 'bit 23']);
  t.equal(virtioFeatureNames(2n ** 64n - 1n).length, 64);
  t.end();
});
