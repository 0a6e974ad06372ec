// A front-end's request as a value: the payload's bytes, once the header has named the request, in typed fields.
// What comes out of here is well-formed; what it means for the device's state is decided in the daemon.
// Spec: vhost-user, "Front-end message types".

import { assertNever } from './assert-never.js';
import { Cursor } from './cursor.js';
import { Fault } from './fault.js';
import * as payloads from './payload.js';
import type { PayloadShape } from './payload.js';
import {
  FRONTEND_REQUEST_SPECS,
  type FrontendRequest,
  frontendRequestName,
  isFrontendRequest,
} from './request.js';

export { MAX_MEM_REGIONS, type MemoryRegionPayload } from './payload.js';

/** The fields that a message has besides `request`, by the shape of its payload. */
interface FieldsByShape {
  readonly none: object;
  readonly features: { readonly features: bigint };
  /** The guest's MAC address is in the first six bytes of the u64 as it lies in memory. */
  readonly mac: { readonly mac: bigint };
  readonly mtu: { readonly mtu: bigint };
  readonly cryptoSessionId: { readonly sessionId: bigint };
  /** The virtio device status of virtio-v1.3 §2.1. */
  readonly status: { readonly status: bigint };
  readonly vringState: payloads.VringStatePayload;
  readonly vringAddr: payloads.VringAddrPayload;
  readonly vringFd: payloads.VringFdPayload;
  readonly memTable: payloads.MemTablePayload;
  readonly memRegion: payloads.MemRegionPayload;
  readonly logBase: payloads.LogBasePayload;
  readonly iotlb: payloads.IotlbPayload;
  readonly config: payloads.ConfigPayload;
  /** QEMU's own struct, not laid out in the specification. */
  readonly cryptoSession: { readonly session: Uint8Array };
  readonly inflight: payloads.InflightPayload;
  /** 16 bytes; the first three components are big-endian. */
  readonly sharedObject: { readonly uuid: Uint8Array };
  readonly deviceState: payloads.DeviceStatePayload;
}

type ShapeOf<R extends FrontendRequest> = (typeof FRONTEND_REQUEST_SPECS)[R]['payload'];
type RequestWith<S extends PayloadShape> = {
  [R in FrontendRequest]: ShapeOf<R> extends S ? R : never;
}[FrontendRequest];
type MessageOf<R extends FrontendRequest> = { readonly request: R } & FieldsByShape[ShapeOf<R>];

/** One well-formed front-end request; `request` tells which fields it has. */
export type FrontendMessage = { [R in FrontendRequest]: MessageOf<R> }[FrontendRequest];

/**
 * The payload of request number `request` as a message.
 *
 * Returns a fault of scope `connection` for an unknown request (`unknown_request`) or a size that the layout does not
 * have (`payload_size`), and of scope `request` for values that the layout forbids: a count of regions, padding or
 * reserved bits that are not zero, a config size that is not that of the bytes. Byte arrays are copies. Never throws.
 */
export function decodeFrontendMessage(request: number, payload: Uint8Array): FrontendMessage | Fault {
  if (!isFrontendRequest(request)) {
    return new Fault('connection', 'unknown_request', `expected request 1 to 44, got ${request}`);
  }
  const { payload: shape } = FRONTEND_REQUEST_SPECS[request];
  const fault = payloads.payloadSizeFault(frontendRequestName(request), shape, payload.length);
  return fault ?? decodeFields(request, new Cursor(payload));
}

/** The payload's bytes; throws RangeError when a field's value does not fit its place on the wire. */
export function encodeFrontendMessage(message: FrontendMessage): Uint8Array {
  if (holds(message, 'none')) return new Uint8Array(0);
  if (holds(message, 'features')) return payloads.encodeU64(message.features);
  if (holds(message, 'mac')) return payloads.encodeU64(message.mac);
  if (holds(message, 'mtu')) return payloads.encodeU64(message.mtu);
  if (holds(message, 'cryptoSessionId')) return payloads.encodeU64(message.sessionId);
  if (holds(message, 'status')) return payloads.encodeU64(message.status);
  if (holds(message, 'vringState')) return payloads.encodeVringState(message);
  if (holds(message, 'vringAddr')) return payloads.encodeVringAddr(message);
  if (holds(message, 'vringFd')) return payloads.encodeVringFd(message);
  if (holds(message, 'memTable')) return payloads.encodeMemTable(message);
  if (holds(message, 'memRegion')) return payloads.encodeMemRegion(message);
  if (holds(message, 'logBase')) return payloads.encodeLogBase(message);
  if (holds(message, 'iotlb')) return payloads.encodeIotlb(message);
  if (holds(message, 'config')) return payloads.encodeConfig(message);
  if (holds(message, 'cryptoSession')) return message.session.slice();
  if (holds(message, 'inflight')) return payloads.encodeInflight(message);
  if (holds(message, 'sharedObject')) return payloads.encodeUuid(message.uuid);
  if (holds(message, 'deviceState')) return payloads.encodeDeviceState(message);
  return assertNever(message);
}

function decodeFields(request: FrontendRequest, cursor: Cursor): FrontendMessage | Fault {
  if (carries(request, 'none')) return { request };
  if (carries(request, 'features')) return { request, features: cursor.u64() };
  if (carries(request, 'mac')) return { request, mac: cursor.u64() };
  if (carries(request, 'mtu')) return { request, mtu: cursor.u64() };
  if (carries(request, 'cryptoSessionId')) return { request, sessionId: cursor.u64() };
  if (carries(request, 'status')) return { request, status: cursor.u64() };
  if (carries(request, 'vringState')) return { request, ...payloads.decodeVringStateFields(cursor) };
  if (carries(request, 'vringAddr')) return { request, ...payloads.decodeVringAddr(cursor) };
  if (carries(request, 'vringFd')) return withRequest(request, payloads.decodeVringFd(cursor));
  if (carries(request, 'memTable')) return withRequest(request, payloads.decodeMemTable(cursor));
  if (carries(request, 'memRegion')) return withRequest(request, payloads.decodeMemRegion(cursor));
  if (carries(request, 'logBase')) return { request, ...payloads.decodeLogBase(cursor) };
  if (carries(request, 'iotlb')) return { request, ...payloads.decodeIotlb(cursor) };
  if (carries(request, 'config')) return withRequest(request, payloads.decodeConfig(cursor));
  if (carries(request, 'cryptoSession')) return { request, session: cursor.bytes(cursor.remaining) };
  if (carries(request, 'inflight')) return { request, ...payloads.decodeInflight(cursor) };
  if (carries(request, 'sharedObject')) return { request, uuid: cursor.bytes(cursor.remaining) };
  if (carries(request, 'deviceState')) return { request, ...payloads.decodeDeviceState(cursor) };
  return assertNever(request);
}

function withRequest<R extends FrontendRequest, F extends object>(
  request: R,
  fields: F | Fault,
): ({ readonly request: R } & F) | Fault {
  return fields instanceof Fault ? fields : { request, ...fields };
}

function carries<S extends PayloadShape>(request: FrontendRequest, shape: S): request is RequestWith<S> {
  return FRONTEND_REQUEST_SPECS[request].payload === shape;
}

function holds<S extends PayloadShape>(
  message: FrontendMessage,
  shape: S,
): message is Extract<FrontendMessage, { readonly request: RequestWith<S> }> {
  return carries(message.request, shape);
}
