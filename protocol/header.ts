// The 12 bytes in front of every vhost-user message, in both directions: the first thing read from a socket.
// Everything that makes a frame untrustworthy is refused here, before a payload byte is waited for or allocated.
// Spec: vhost-user, "Message Specification", "Header".

import { Cursor, U32_BYTES, Writer } from './cursor.js';
import { Fault } from './fault.js';

// | request u32 | flags u32 | size u32 |
/** Size of a header on the wire. */
export const HEADER_BYTES: number = 3 * U32_BYTES;

/**
 * Largest payload accepted, in bytes.
 *
 * The largest request is a crypto session, whose key alone may have 1,024 bytes; the largest reply is the shared
 * memory configuration of 2,056. One page is above both and bounds what a connection can make the daemon hold.
 */
export const MAX_PAYLOAD_BYTES = 4096;

// vhost-user, "Header": the bits of `flags`.
export const FLAG_VERSION_MASK = 0x3;
export const FLAG_VERSION = 0x1;
export const FLAG_REPLY = 1 << 2;
export const FLAG_NEED_REPLY = 1 << 3;

const KNOWN_FLAGS = FLAG_VERSION_MASK | FLAG_REPLY | FLAG_NEED_REPLY;

/** A message's header; `payloadBytes` follow it on the wire. */
export interface Header {
  /** The request's number: a FrontendRequest or a BackendRequest, by the direction; not yet known to exist. */
  readonly request: number;
  /** Set on what answers a request. */
  readonly reply: boolean;
  /** Set when the sender waits for an answer also to a request that has none of its own. */
  readonly needReply: boolean;
  readonly payloadBytes: number;
}

/**
 * Reads the header at the start of `bytes`, of which at least HEADER_BYTES must be there.
 *
 * Returns a fault of scope `connection` for a short header, another version than 1, a reserved flag bit or a payload
 * above MAX_PAYLOAD_BYTES. Whether a reply may come at this place is the caller's to say. Never throws.
 */
export function decodeHeader(bytes: Uint8Array): Header | Fault {
  if (bytes.length < HEADER_BYTES) {
    return new Fault('connection', 'header_size', `expected ${HEADER_BYTES} bytes, got ${bytes.length}`);
  }
  const cursor = new Cursor(bytes);
  const request = cursor.u32();
  const flags = cursor.u32();
  const payloadBytes = cursor.u32();
  const version = flags & FLAG_VERSION_MASK;
  if (version !== FLAG_VERSION) {
    return new Fault('connection', 'header_version', `expected version ${FLAG_VERSION}, got ${version}`);
  }
  if ((flags & ~KNOWN_FLAGS) !== 0) {
    const message = `expected no flag outside 0x${KNOWN_FLAGS.toString(16)}, got 0x${flags.toString(16)}`;
    return new Fault('connection', 'header_flags', message);
  }
  if (payloadBytes > MAX_PAYLOAD_BYTES) {
    const message = `expected a payload of at most ${MAX_PAYLOAD_BYTES} bytes, got ${payloadBytes}`;
    return new Fault('connection', 'payload_too_large', message);
  }
  const reply = (flags & FLAG_REPLY) !== 0;
  const needReply = (flags & FLAG_NEED_REPLY) !== 0;
  return { request, reply, needReply, payloadBytes };
}

/** The header's HEADER_BYTES bytes; throws RangeError when a field does not fit or the payload is too large. */
export function encodeHeader(header: Header): Uint8Array {
  if (header.payloadBytes > MAX_PAYLOAD_BYTES) {
    throw new RangeError(`expected at most ${MAX_PAYLOAD_BYTES} bytes, got ${header.payloadBytes}`);
  }
  const flags = FLAG_VERSION | (header.reply ? FLAG_REPLY : 0) | (header.needReply ? FLAG_NEED_REPLY : 0);
  return new Writer(HEADER_BYTES).u32(header.request).u32(flags).u32(header.payloadBytes).finish();
}
