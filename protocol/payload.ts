// The payloads of vhost-user messages: for each layout of the specification its fields, its size and its codec.
// They stand between the cursor, which knows integers, and message.ts, which knows which request carries which.
// Decoders expect the size to have been compared by `payloadSizeFault`, and return what the layout itself forbids.
// Spec: vhost-user, "Message Specification", "Payload".

import { type Cursor, U16_BYTES, U32_BYTES, U64_BYTES, U8_BYTES, Writer } from './cursor.js';
import { Fault } from './fault.js';

// A single 64-bit integer: | u64 |
const U64_PAYLOAD_BYTES = U64_BYTES;

export function encodeU64(value: bigint): Uint8Array {
  return new Writer(U64_PAYLOAD_BYTES).u64(value).finish();
}

// A vring state description: | index u32 | num u32 |
export interface VringStatePayload {
  readonly index: number;
  readonly num: number;
}
const VRING_STATE_BYTES: number = 2 * U32_BYTES;

export function decodeVringStateFields(cursor: Cursor): VringStatePayload {
  const index = cursor.u32();
  const num = cursor.u32();
  return { index, num };
}

export function encodeVringState(state: VringStatePayload): Uint8Array {
  return new Writer(VRING_STATE_BYTES).u32(state.index).u32(state.num).finish();
}

// A vring address description: | index u32 | flags u32 | descriptor u64 | used u64 | available u64 | log u64 |
/** Ring addresses are the front-end's virtual addresses, `logGuestAddr` is guest-physical. */
export interface VringAddrPayload {
  readonly index: number;
  /** Bit 0: writes to the used ring are logged at `logGuestAddr`. */
  readonly flags: number;
  readonly descUserAddr: bigint;
  readonly usedUserAddr: bigint;
  readonly availUserAddr: bigint;
  readonly logGuestAddr: bigint;
}
const VRING_ADDR_BYTES: number = 2 * U32_BYTES + 4 * U64_BYTES;

export function decodeVringAddr(cursor: Cursor): VringAddrPayload {
  const index = cursor.u32();
  const flags = cursor.u32();
  const descUserAddr = cursor.u64();
  const usedUserAddr = cursor.u64();
  const availUserAddr = cursor.u64();
  const logGuestAddr = cursor.u64();
  return { index, flags, descUserAddr, usedUserAddr, availUserAddr, logGuestAddr };
}

export function encodeVringAddr(addr: VringAddrPayload): Uint8Array {
  const writer = new Writer(VRING_ADDR_BYTES).u32(addr.index).u32(addr.flags);
  writer.u64(addr.descUserAddr).u64(addr.usedUserAddr).u64(addr.availUserAddr).u64(addr.logGuestAddr);
  return writer.finish();
}

// SET_VRING_KICK, CALL and ERR: | u64: bits 0-7 vring index, bit 8 no file descriptor, the others reserved |
export interface VringFdPayload {
  /** 0 to 255. */
  readonly index: number;
  /** True when no file descriptor comes along: the ring is polled, or not signalled. */
  readonly noFd: boolean;
}
const VRING_INDEX_MASK = 0xffn;
const NO_FD_FLAG = 1n << 8n;

export function decodeVringFd(cursor: Cursor): VringFdPayload | Fault {
  const value = cursor.u64();
  if ((value & ~(VRING_INDEX_MASK | NO_FD_FLAG)) !== 0n) {
    const message = `expected no bit above 8, got 0x${value.toString(16)}`;
    return new Fault('request', 'vring_fd_reserved_bits', message);
  }
  return { index: Number(value & VRING_INDEX_MASK), noFd: (value & NO_FD_FLAG) !== 0n };
}

export function encodeVringFd(vringFd: VringFdPayload): Uint8Array {
  const index = BigInt(vringFd.index);
  if ((index & ~VRING_INDEX_MASK) !== 0n) throw new RangeError(`expected 0 to 255, got ${vringFd.index}`);
  return encodeU64(index | (vringFd.noFd ? NO_FD_FLAG : 0n));
}

// A memory region description: | guest address u64 | size u64 | user address u64 | mmap offset u64 |
export interface MemoryRegionPayload {
  readonly guestPhysAddr: bigint;
  /** In bytes. */
  readonly size: bigint;
  /** The front-end's virtual address of the region's first byte. */
  readonly userAddr: bigint;
  /** In bytes, from the start of the file that comes along. */
  readonly mmapOffset: bigint;
}
const REGION_BYTES = 4 * U64_BYTES;

function decodeRegion(cursor: Cursor): MemoryRegionPayload {
  const guestPhysAddr = cursor.u64();
  const size = cursor.u64();
  const userAddr = cursor.u64();
  const mmapOffset = cursor.u64();
  return { guestPhysAddr, size, userAddr, mmapOffset };
}

function encodeRegion(writer: Writer, region: MemoryRegionPayload): void {
  writer.u64(region.guestPhysAddr).u64(region.size).u64(region.userAddr).u64(region.mmapOffset);
}

// A single memory region description: | padding u64 | region |
export interface MemRegionPayload {
  readonly region: MemoryRegionPayload;
}
const MEM_REGION_BYTES: number = U64_BYTES + REGION_BYTES;

export function decodeMemRegion(cursor: Cursor): MemRegionPayload | Fault {
  const padding = cursor.u64();
  if (padding !== 0n) return paddingFault(`0x${padding.toString(16)}`);
  return { region: decodeRegion(cursor) };
}

export function encodeMemRegion(payload: MemRegionPayload): Uint8Array {
  const writer = new Writer(MEM_REGION_BYTES).zeros(U64_BYTES);
  encodeRegion(writer, payload.region);
  return writer.finish();
}

// Multiple memory regions description: | num regions u32 | padding u32 | region 0 | ... | region 7 |
export interface MemTablePayload {
  /** 1 to MAX_MEM_REGIONS, in the order of the file descriptors that come along. */
  readonly regions: readonly MemoryRegionPayload[];
}
const MEM_TABLE_HEADER_BYTES = 2 * U32_BYTES;

/** The most regions in one SET_MEM_TABLE: the layout ends at region 7. */
export const MAX_MEM_REGIONS = 8;

/** Bytes after the last region are passed over: virtio_uml always sends room for two (vhost-user.md §2). */
export function decodeMemTable(cursor: Cursor): MemTablePayload | Fault {
  if (cursor.remaining < MEM_TABLE_HEADER_BYTES) {
    return sizeFault('SET_MEM_TABLE', `at least ${MEM_TABLE_HEADER_BYTES}`, cursor.remaining);
  }
  const count = cursor.u32();
  const padding = cursor.u32();
  if (count === 0 || count > MAX_MEM_REGIONS) {
    return new Fault('request', 'mem_region_count', `expected 1 to ${MAX_MEM_REGIONS} regions, got ${count}`);
  }
  if (padding !== 0) return paddingFault(`0x${padding.toString(16)}`);
  const regionsBytes = count * REGION_BYTES;
  if (cursor.remaining < regionsBytes) {
    const expected = `at least ${MEM_TABLE_HEADER_BYTES + regionsBytes}`;
    return sizeFault('SET_MEM_TABLE', expected, MEM_TABLE_HEADER_BYTES + cursor.remaining);
  }
  return { regions: Array.from({ length: count }, () => decodeRegion(cursor)) };
}

export function encodeMemTable(table: MemTablePayload): Uint8Array {
  const count = table.regions.length;
  if (count === 0 || count > MAX_MEM_REGIONS) {
    throw new RangeError(`expected 1 to ${MAX_MEM_REGIONS} regions, got ${count}`);
  }
  const writer = new Writer(MEM_TABLE_HEADER_BYTES + count * REGION_BYTES).u32(count).zeros(U32_BYTES);
  for (const region of table.regions) encodeRegion(writer, region);
  return writer.finish();
}

// A log description, with LOG_SHMFD: | log size u64 | log offset u64 |; without it: | u64 |
export interface LogBasePayload {
  /** `area`: a part of the file that comes along, in bytes; `address`: a front-end's address, of no use here. */
  readonly log:
    | { readonly kind: 'area'; readonly mmapSize: bigint; readonly mmapOffset: bigint }
    | { readonly kind: 'address'; readonly address: bigint };
}
const LOG_AREA_BYTES: number = 2 * U64_BYTES;

export function decodeLogBase(cursor: Cursor): LogBasePayload {
  if (cursor.remaining < LOG_AREA_BYTES) return { log: { kind: 'address', address: cursor.u64() } };
  const mmapSize = cursor.u64();
  const mmapOffset = cursor.u64();
  return { log: { kind: 'area', mmapSize, mmapOffset } };
}

export function encodeLogBase({ log }: LogBasePayload): Uint8Array {
  if (log.kind === 'address') return encodeU64(log.address);
  return new Writer(LOG_AREA_BYTES).u64(log.mmapSize).u64(log.mmapOffset).finish();
}

// struct vhost_iotlb_msg: | iova u64 | size u64 | user address u64 | permissions u8 | type u8 | padding 6 bytes |
export interface IotlbPayload {
  readonly iova: bigint;
  readonly size: bigint;
  readonly userAddr: bigint;
  /** Bit 0: read; bit 1: write. */
  readonly permissions: number;
  /** 1 miss, 2 update, 3 invalidate, 4 access failure. */
  readonly type: number;
}
const IOTLB_FIELD_BYTES = 3 * U64_BYTES + 2 * U8_BYTES;
const IOTLB_PADDING_BYTES = 6; // The spec names the C struct, which ends at a multiple of its u64's alignment.
const IOTLB_BYTES: number = IOTLB_FIELD_BYTES + IOTLB_PADDING_BYTES;

export function decodeIotlb(cursor: Cursor): IotlbPayload {
  const iova = cursor.u64();
  const size = cursor.u64();
  const userAddr = cursor.u64();
  const permissions = cursor.u8();
  const type = cursor.u8();
  return { iova, size, userAddr, permissions, type };
}

export function encodeIotlb(iotlb: IotlbPayload): Uint8Array {
  const writer = new Writer(IOTLB_BYTES).u64(iotlb.iova).u64(iotlb.size).u64(iotlb.userAddr);
  return writer.u8(iotlb.permissions).u8(iotlb.type).zeros(IOTLB_PADDING_BYTES).finish();
}

// Virtio device config space: | offset u32 | size u32 | flags u32 | payload: size bytes |
export interface ConfigPayload {
  readonly offset: number;
  /** In bytes; always that of `bytes`. */
  readonly size: number;
  /** 0: writable fields; 1: live migration. */
  readonly flags: number;
  readonly bytes: Uint8Array;
}
const CONFIG_HEADER_BYTES = 3 * U32_BYTES;

export function decodeConfig(cursor: Cursor): ConfigPayload | Fault {
  if (cursor.remaining < CONFIG_HEADER_BYTES) {
    return sizeFault('a config message', `at least ${CONFIG_HEADER_BYTES}`, cursor.remaining);
  }
  const offset = cursor.u32();
  const size = cursor.u32();
  const flags = cursor.u32();
  if (size !== cursor.remaining) {
    // The frame itself is whole, so what follows can be trusted: refuse the message and keep the connection.
    return new Fault('request', 'config_size', `expected ${size} bytes of config, got ${cursor.remaining}`);
  }
  return { offset, size, flags, bytes: cursor.bytes(size) };
}

export function encodeConfig(config: ConfigPayload): Uint8Array {
  if (config.size !== config.bytes.length) {
    throw new RangeError(`expected ${config.size} bytes, got ${config.bytes.length}`);
  }
  const writer = new Writer(CONFIG_HEADER_BYTES + config.size);
  return writer.u32(config.offset).u32(config.size).u32(config.flags).bytes(config.bytes).finish();
}

// Inflight description: | mmap size u64 | mmap offset u64 | num queues u16 | queue size u16 | [padding 4 bytes] |
export interface InflightPayload {
  readonly mmapSize: bigint;
  readonly mmapOffset: bigint;
  readonly numQueues: number;
  readonly queueSize: number;
  /** Bytes after the fields: the answer to GET_INFLIGHT_FD must have the size that its front-end expects. */
  readonly paddingBytes: 0 | 4;
}
/** The fields of the specification, without the padding of the C struct. */
const INFLIGHT_BYTES: number = 2 * U64_BYTES + 2 * U16_BYTES;
/** QEMU, crosvm and rust-vmm send the C struct, which ends at a multiple of its u64's alignment. */
const INFLIGHT_PADDING_BYTES = 4;
const INFLIGHT_STRUCT_BYTES: number = INFLIGHT_BYTES + INFLIGHT_PADDING_BYTES;

export function decodeInflight(cursor: Cursor): InflightPayload {
  const mmapSize = cursor.u64();
  const mmapOffset = cursor.u64();
  const numQueues = cursor.u16();
  const queueSize = cursor.u16();
  const paddingBytes = cursor.remaining === 0 ? 0 : INFLIGHT_PADDING_BYTES;
  return { mmapSize, mmapOffset, numQueues, queueSize, paddingBytes };
}

export function encodeInflight(inflight: InflightPayload): Uint8Array {
  const writer = new Writer(INFLIGHT_BYTES + inflight.paddingBytes);
  writer.u64(inflight.mmapSize).u64(inflight.mmapOffset).u16(inflight.numQueues).u16(inflight.queueSize);
  return writer.zeros(inflight.paddingBytes).finish();
}

// VhostUserShared: | UUID 16 bytes |
const UUID_BYTES = 16;

export function encodeUuid(uuid: Uint8Array): Uint8Array {
  return new Writer(UUID_BYTES).bytes(uuid).finish();
}

// Device state transfer parameters: | transfer direction u32 | migration phase u32 |
export interface DeviceStatePayload {
  /** 0 save, 1 load. */
  readonly direction: number;
  /** 0 stopped. */
  readonly phase: number;
}
const DEVICE_STATE_BYTES: number = 2 * U32_BYTES;

export function decodeDeviceState(cursor: Cursor): DeviceStatePayload {
  const direction = cursor.u32();
  const phase = cursor.u32();
  return { direction, phase };
}

export function encodeDeviceState(state: DeviceStatePayload): Uint8Array {
  return new Writer(DEVICE_STATE_BYTES).u32(state.direction).u32(state.phase).finish();
}

/** The sizes in bytes that a payload of each shape may have; `variable` where its own fields tell. */
export const PAYLOAD_BYTES = {
  none: [0],
  features: [U64_PAYLOAD_BYTES],
  mac: [U64_PAYLOAD_BYTES],
  mtu: [U64_PAYLOAD_BYTES],
  cryptoSessionId: [U64_PAYLOAD_BYTES],
  status: [U64_PAYLOAD_BYTES],
  vringState: [VRING_STATE_BYTES],
  vringAddr: [VRING_ADDR_BYTES],
  vringFd: [U64_PAYLOAD_BYTES],
  memTable: 'variable',
  memRegion: [MEM_REGION_BYTES],
  logBase: [LOG_AREA_BYTES, U64_PAYLOAD_BYTES],
  iotlb: [IOTLB_BYTES],
  config: 'variable',
  cryptoSession: 'variable',
  inflight: [INFLIGHT_BYTES, INFLIGHT_STRUCT_BYTES],
  sharedObject: [UUID_BYTES],
  deviceState: [DEVICE_STATE_BYTES],
} as const satisfies Readonly<Record<string, readonly number[] | 'variable'>>;

/** The names of the payload layouts; five are one u64 and differ in what it says. */
export type PayloadShape = keyof typeof PAYLOAD_BYTES;

/** A fault of scope `connection` when no payload of this shape has `gotBytes` bytes. */
export function payloadSizeFault(what: string, shape: PayloadShape, gotBytes: number): Fault | undefined {
  const allowed: readonly number[] | 'variable' = PAYLOAD_BYTES[shape];
  if (allowed === 'variable' || allowed.includes(gotBytes)) return undefined;
  return sizeFault(what, allowed.join(' or '), gotBytes);
}

/** A payload of another size than its layout: nothing after it on this connection can be trusted. */
export function sizeFault(what: string, expected: number | string, gotBytes: number): Fault {
  return new Fault('connection', 'payload_size', `expected ${expected} bytes for ${what}, got ${gotBytes}`);
}

function paddingFault(got: string): Fault {
  return new Fault('request', 'padding_not_zero', `expected zero padding, got ${got}`);
}
