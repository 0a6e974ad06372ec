// Whole messages ready for the socket, header and payload: the back-end's answers, and a front-end's requests for tests
// and tools. The last stop of the control plane before the socket.
// Spec: vhost-user, "Message Specification", "Header".

import { Cursor } from './cursor.js';
import type { Fault } from './fault.js';
import { encodeHeader, HEADER_BYTES } from './header.js';
import {
  decodeVringStateFields,
  encodeU64,
  encodeVringState,
  payloadSizeFault,
  type VringStatePayload,
} from './payload.js';

/** The answer to `request` with this payload; throws RangeError when the payload is above MAX_PAYLOAD_BYTES. */
export function encodeReply(request: number, payload: Uint8Array): Uint8Array {
  return join(
    encodeHeader({ request, reply: true, needReply: false, payloadBytes: payload.length }),
    payload,
  );
}

/** An answer of one u64, as to GET_FEATURES and to every NEED_REPLY, where 0 says success. */
export function encodeU64Reply(request: number, value: bigint): Uint8Array {
  return encodeReply(request, encodeU64(value));
}

/** The answer to GET_VRING_BASE: the ring and its next available index. */
export function encodeVringStateReply(request: number, index: number, num: number): Uint8Array {
  return encodeReply(request, encodeVringState({ index, num }));
}

/** A request with this payload; throws RangeError when the payload is above MAX_PAYLOAD_BYTES. */
export function encodeRequest(
  request: number,
  payload: Uint8Array,
  options: { readonly needReply: boolean },
): Uint8Array {
  const { needReply } = options;
  return join(encodeHeader({ request, reply: false, needReply, payloadBytes: payload.length }), payload);
}

/** An answer's u64, or a fault of scope `connection` when the payload is not of 8 bytes. */
export function decodeU64(payload: Uint8Array): bigint | Fault {
  return payloadSizeFault('a u64', 'status', payload.length) ?? new Cursor(payload).u64();
}

/** An answer's vring state, or a fault of scope `connection` when the payload is not of 8 bytes. */
export function decodeVringState(payload: Uint8Array): VringStatePayload | Fault {
  const fault = payloadSizeFault('a vring state', 'vringState', payload.length);
  return fault ?? decodeVringStateFields(new Cursor(payload));
}

function join(header: Uint8Array, payload: Uint8Array): Uint8Array {
  const message = new Uint8Array(HEADER_BYTES + payload.length);
  message.set(header);
  message.set(payload, HEADER_BYTES);
  return message;
}
