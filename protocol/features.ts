// The feature bits that are negotiated: virtio's with the guest's driver, the protocol's with the front-end.
// Numbers and names only; what the device offers and what a bit changes stands in the daemon.
// Specs: virtio-v1.3 §2.2 and §6; vhost-user, "Protocol features".

/** Virtio feature bits by number: those of every device type, and vhost's own two below 32. */
export const VirtioFeature = {
  NOTIFY_ON_EMPTY: 24, // virtio-v1.3 §6.3, legacy
  LOG_ALL: 26, // vhost-user, "Migration": VHOST_F_LOG_ALL
  ANY_LAYOUT: 27, // virtio-v1.3 §6.3, legacy
  INDIRECT_DESC: 28,
  EVENT_IDX: 29,
  PROTOCOL_FEATURES: 30, // vhost-user, "Communication": VHOST_USER_F_PROTOCOL_FEATURES
  VERSION_1: 32,
  ACCESS_PLATFORM: 33,
  RING_PACKED: 34,
  IN_ORDER: 35,
  ORDER_PLATFORM: 36,
  SR_IOV: 37,
  NOTIFICATION_DATA: 38,
  NOTIF_CONFIG_DATA: 39,
  RING_RESET: 40,
} as const;
export type VirtioFeature = (typeof VirtioFeature)[keyof typeof VirtioFeature];

/** Vhost-user protocol feature bits by number. */
export const ProtocolFeature = {
  MQ: 0,
  LOG_SHMFD: 1,
  RARP: 2,
  REPLY_ACK: 3,
  MTU: 4,
  BACKEND_REQ: 5,
  CROSS_ENDIAN: 6,
  CRYPTO_SESSION: 7,
  PAGEFAULT: 8,
  CONFIG: 9,
  BACKEND_SEND_FD: 10,
  HOST_NOTIFIER: 11,
  INFLIGHT_SHMFD: 12,
  RESET_DEVICE: 13,
  INBAND_NOTIFICATIONS: 14,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
  XEN_MMAP: 17,
  SHARED_OBJECT: 18,
  DEVICE_STATE: 19,
  GET_VRING_BASE_INFLIGHT: 20,
  GPA_ADDRESSES: 21,
  SHMEM: 22,
} as const;
export type ProtocolFeature = (typeof ProtocolFeature)[keyof typeof ProtocolFeature];

/** The u64 in which exactly `bits` are set; each is 0 to 63. */
export function maskOf(...bits: number[]): bigint {
  return bits.reduce((mask, bit) => mask | (1n << BigInt(bit)), 0n);
}

/** Whether `bit` is set in `features`. */
export function has(features: bigint, bit: number): boolean {
  return ((features >> BigInt(bit)) & 1n) === 1n;
}

/** The names of the set bits, lowest first; a bit without a name is `bit N`. */
export function virtioFeatureNames(features: bigint): string[] {
  return namesOf(features, VIRTIO_NAMES);
}

/** The names of the set bits, lowest first; a bit without a name is `bit N`. */
export function protocolFeatureNames(features: bigint): string[] {
  return namesOf(features, PROTOCOL_NAMES);
}

const FEATURE_BITS = 64; // features travel as one u64

const VIRTIO_NAMES = byBit(VirtioFeature);
const PROTOCOL_NAMES = byBit(ProtocolFeature);

function byBit(features: Readonly<Record<string, number>>): ReadonlyMap<number, string> {
  return new Map(Object.entries(features).map(([name, bit]) => [bit, name]));
}

function namesOf(features: bigint, names: ReadonlyMap<number, string>): string[] {
  const set: string[] = [];
  for (let bit = 0; bit < FEATURE_BITS; bit++) {
    if (has(features, bit)) set.push(names.get(bit) ?? `bit ${bit}`);
  }
  return set;
}
