// Wire vectors as data: payload bytes of front-end requests, written by hand from the specification, and what each
// must be read as. Bytes are those of a little-endian machine; blanks are for the eye.
// Rows of bad-input.md are named where a vector keeps one.

export interface Vector {
  readonly title: string;
  readonly request: number;
  readonly payload: string;
  /** The message's fields without `request`; of a valid vector. */
  readonly fields?: Readonly<Record<string, unknown>>;
  /** Scope and code; of an invalid vector. */
  readonly fault?: readonly [scope: string, code: string];
  /** The bytes that the message is written as when they are not `payload`: what has no meaning becomes zero. */
  readonly rewritten?: string;
}

export function fromHex(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
}

const QEMU_REGION = {
  guestPhysAddr: 0n,
  size: 0x1000_0000n,
  userAddr: 0x7f12_3400_0000n,
  mmapOffset: 0n,
};
const QEMU_REGION_HEX = '0000000000000000 0000001000000000 0000003412 7f0000 0000000000000000';
const FULL_REGION = {
  guestPhysAddr: 0xffff_ffff_ffff_ffffn,
  size: 0xffff_ffff_ffff_f001n,
  userAddr: 0x0020_0000_0000_0001n,
  mmapOffset: 0x8000_0000_0000_0001n,
};
const FULL_REGION_HEX = 'ffffffffffffffff 01f0ffffffffffff 0100000000002000 0100000000000080';

const EMPTY_REQUESTS = [1, 3, 4, 7, 15, 17, 21, 28, 29, 30, 33, 34, 36, 40, 43, 44];
const STATE_REQUESTS = [8, 10, 11, 18, 23, 35];
const VRING_FD_REQUESTS = [12, 13, 14];

export const VALID: readonly Vector[] = [
  ...EMPTY_REQUESTS.map((request) => ({ title: 'no payload', request, payload: '', fields: {} })),
  ...STATE_REQUESTS.flatMap((request): Vector[] => [
    { title: 'ring 0', request, payload: '00000000 04000000', fields: { index: 0, num: 4 } },
    {
      title: 'row 68: the index is a u32',
      request,
      payload: 'ffffffff 00000100',
      fields: { index: 0xffff_ffff, num: 0x10000 },
    },
  ]),
  ...VRING_FD_REQUESTS.flatMap((request): Vector[] => [
    { title: 'with fd', request, payload: '0000000000000000', fields: { index: 0, noFd: false } },
    { title: 'without fd', request, payload: 'ff01000000000000', fields: { index: 255, noFd: true } },
  ]),
  {
    title: 'QEMU acknowledges what was offered',
    request: 2,
    payload: '0000007001000000',
    fields: { features: 0x1_7000_0000n },
  },
  { title: 'MQ and REPLY_ACK', request: 16, payload: '0900000000000000', fields: { features: 9n } },
  {
    title: 'row 51: above 2^53',
    request: 2,
    payload: '0100000000002080',
    fields: { features: 0x8020_0000_0000_0001n },
  },
  {
    title: 'QEMU with one region of 256 MiB',
    request: 5,
    payload: `01000000 00000000 ${QEMU_REGION_HEX}`,
    fields: { regions: [QEMU_REGION] },
  },
  {
    title: 'row 16: virtio_uml, one region in room for two',
    request: 5,
    payload: `01000000 00000000 ${FULL_REGION_HEX} ${'aa'.repeat(32)}`,
    fields: { regions: [FULL_REGION] },
    rewritten: `01000000 00000000 ${FULL_REGION_HEX}`,
  },
  {
    title: 'eight regions',
    request: 5,
    payload: `08000000 00000000 ${`${QEMU_REGION_HEX} ${FULL_REGION_HEX} `.repeat(4)}`,
    fields: { regions: Array.from({ length: 4 }, () => [QEMU_REGION, FULL_REGION]).flat() },
  },
  {
    title: 'with LOG_SHMFD',
    request: 6,
    payload: '0020000000000000 0010000000000000',
    fields: { log: { kind: 'area', mmapSize: 0x2000n, mmapOffset: 0x1000n } },
  },
  {
    title: 'without LOG_SHMFD',
    request: 6,
    payload: '0000003412 7f0000',
    fields: { log: { kind: 'address', address: 0x7f12_3400_0000n } },
  },
  {
    title: 'the order is descriptor, used, available, log',
    request: 9,
    payload: '01000000 02000000 0300000000000000 0400000000000000 0500000000000000 ffffffffffffffff',
    fields: {
      index: 1,
      flags: 2,
      descUserAddr: 3n,
      usedUserAddr: 4n,
      availUserAddr: 5n,
      logGuestAddr: 0xffff_ffff_ffff_ffffn,
    },
  },
  { title: 'MAC', request: 19, payload: '525400123456 0000', fields: { mac: 0x5634_1200_5452n } },
  { title: 'MTU 1500', request: 20, payload: 'dc05000000000000', fields: { mtu: 1500n } },
  {
    title: 'update, padding passed over',
    request: 22,
    payload: '0010000000000000 0020000000000000 0030000000000000 03 02 ffffffffffff',
    fields: { iova: 0x1000n, size: 0x2000n, userAddr: 0x3000n, permissions: 3, type: 2 },
    rewritten: '0010000000000000 0020000000000000 0030000000000000 03 02 000000000000',
  },
  ...[24, 25].map((request) => ({
    title: 'four bytes at offset 8',
    request,
    payload: '08000000 04000000 01000000 deadbeef',
    fields: { offset: 8, size: 4, flags: 1, bytes: fromHex('deadbeef') },
  })),
  { title: 'any bytes', request: 26, payload: '00ff10', fields: { session: fromHex('00ff10') } },
  { title: 'session 7', request: 27, payload: '0700000000000000', fields: { sessionId: 7n } },
  ...[31, 32].flatMap((request): Vector[] => [
    {
      title: 'the fields of the specification',
      request,
      payload: '0010000000000000 0008000000000000 0100 0004',
      fields: { mmapSize: 0x1000n, mmapOffset: 0x800n, numQueues: 1, queueSize: 1024, paddingBytes: 0 },
    },
    {
      title: "QEMU's struct with four bytes of padding",
      request,
      payload: '0010000000000000 0008000000000000 0100 0004 ffffffff',
      fields: { mmapSize: 0x1000n, mmapOffset: 0x800n, numQueues: 1, queueSize: 1024, paddingBytes: 4 },
      rewritten: '0010000000000000 0008000000000000 0100 0004 00000000',
    },
  ]),
  ...[37, 38].map((request) => ({
    title: 'one region',
    request,
    payload: `0000000000000000 ${FULL_REGION_HEX}`,
    fields: { region: FULL_REGION },
  })),
  { title: 'FEATURES_OK', request: 39, payload: '0800000000000000', fields: { status: 8n } },
  {
    title: 'a UUID',
    request: 41,
    payload: '00112233445566778899aabbccddeeff',
    fields: { uuid: fromHex('00112233445566778899aabbccddeeff') },
  },
  { title: 'load, stopped', request: 42, payload: '01000000 00000000', fields: { direction: 1, phase: 0 } },
];

/** Row 16 and 17: the sizes that the payload of a request may have, where they are fixed. */
export const FIXED_SIZES: readonly (readonly [requests: readonly number[], sizes: readonly number[]])[] = [
  [EMPTY_REQUESTS, [0]],
  [[2, 16, 19, 20, 27, 39], [8]],
  [STATE_REQUESTS, [8]],
  [VRING_FD_REQUESTS, [8]],
  [[6], [8, 16]],
  [[9], [40]],
  [[22], [32]],
  [
    [31, 32],
    [20, 24],
  ],
  [[37, 38], [40]],
  [[41], [16]],
  [[42], [8]],
];

export const INVALID: readonly Vector[] = [
  ...[0, 45, 99, 0x8000_0001, 0xffff_ffff].map((request): Vector => {
    return {
      title: 'row 13: no such request',
      request,
      payload: '',
      fault: ['connection', 'unknown_request'],
    };
  }),
  ...FIXED_SIZES.flatMap(([requests, sizes]) =>
    requests.flatMap((request) =>
      [...new Set(sizes.flatMap((size) => [size - 1, size + 1, size + 8, 4096]))]
        .filter((size) => size >= 0 && !sizes.includes(size))
        .map((size): Vector => {
          const payload = '00'.repeat(size);
          return { title: `row 16: ${size} bytes`, request, payload, fault: ['connection', 'payload_size'] };
        }),
    ),
  ),
  ...['0002000000000000', '0080000000000000', '0000010000000000', '0000000000000080'].flatMap((payload) =>
    VRING_FD_REQUESTS.map((request): Vector => {
      return {
        title: `reserved bits ${payload}`,
        request,
        payload,
        fault: ['request', 'vring_fd_reserved_bits'],
      };
    }),
  ),
  { title: 'empty', request: 5, payload: '', fault: ['connection', 'payload_size'] },
  { title: 'half a header', request: 5, payload: '01000000 000000', fault: ['connection', 'payload_size'] },
  {
    title: 'row 47: no region',
    request: 5,
    payload: `00000000 00000000 ${QEMU_REGION_HEX}`,
    fault: ['request', 'mem_region_count'],
  },
  {
    title: 'row 47: nine regions',
    request: 5,
    payload: `09000000 00000000 ${QEMU_REGION_HEX.repeat(9)}`,
    fault: ['request', 'mem_region_count'],
  },
  {
    title: 'row 47: 33 regions',
    request: 5,
    payload: `21000000 00000000 ${QEMU_REGION_HEX.repeat(33)}`,
    fault: ['request', 'mem_region_count'],
  },
  {
    title: '2^32 - 1 regions announced in 40 bytes',
    request: 5,
    payload: `ffffffff 00000000 ${QEMU_REGION_HEX}`,
    fault: ['request', 'mem_region_count'],
  },
  {
    title: 'row 47: padding',
    request: 5,
    payload: `01000000 00000001 ${QEMU_REGION_HEX}`,
    fault: ['request', 'padding_not_zero'],
  },
  {
    title: 'row 16: one byte short of one region',
    request: 5,
    payload: `01000000 00000000 ${QEMU_REGION_HEX.slice(0, -2)}`,
    fault: ['connection', 'payload_size'],
  },
  {
    title: 'row 16: two regions announced, one there',
    request: 5,
    payload: `02000000 00000000 ${QEMU_REGION_HEX}`,
    fault: ['connection', 'payload_size'],
  },
  ...[37, 38].map((request): Vector => {
    const payload = `0000000000000001 ${FULL_REGION_HEX}`;
    return { title: 'row 47: padding', request, payload, fault: ['request', 'padding_not_zero'] };
  }),
  ...[24, 25].flatMap((request): Vector[] => [
    { title: 'no header', request, payload: '', fault: ['connection', 'payload_size'] },
    { title: '11 bytes', request, payload: '00'.repeat(11), fault: ['connection', 'payload_size'] },
    {
      title: 'fewer bytes than it says',
      request,
      payload: '00000000 05000000 00000000 00000000',
      fault: ['request', 'config_size'],
    },
    {
      title: 'more bytes than it says',
      request,
      payload: '00000000 03000000 00000000 00000000',
      fault: ['request', 'config_size'],
    },
    {
      title: '2^32 - 1 bytes announced',
      request,
      payload: '00000000 ffffffff 00000000',
      fault: ['request', 'config_size'],
    },
  ]),
];
