// Bounds-checked reading and writing of a message's bytes, in the order in which the wire has them.
// The only place of the codec that touches a byte: everything above it names fields.
// Source: vhost-user, "Message Specification": all numbers are in the machine native byte order.

/** Whether this machine, and so the vhost-user wire, puts the least significant byte first. */
export const NATIVE_LITTLE_ENDIAN: boolean = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;

const U8_MAX = 0xff;
const U16_MAX = 0xffff;
const U32_MAX = 0xffff_ffff;
const U64_MAX = 0xffff_ffff_ffff_ffffn;

export const U8_BYTES = 1;
export const U16_BYTES = 2;
export const U32_BYTES = 4;
export const U64_BYTES = 8;

/** Claims `count` bytes at `offset` of `total`, or throws: the one bounds check of both classes. */
function claim(offset: number, count: number, total: number): number {
  if (!Number.isInteger(count) || count < 0 || count > total - offset) {
    throw new RangeError(`expected at most ${total - offset} bytes at offset ${offset}, got ${count}`);
  }
  return offset + count;
}

/**
 * Reads native-endian integers from `bytes`, from the first to the last, each once.
 *
 * Every read throws RangeError when it would pass the end. Decoders compare the payload's size with the layout
 * before they read, so the exception shows a defect of ours and not what a peer sent.
 */
export class Cursor {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** How many bytes have not been read. */
  get remaining(): number {
    return this.#bytes.length - this.#offset;
  }

  /** The next byte; throws RangeError at the end. */
  u8(): number {
    return this.#view.getUint8(this.#advance(U8_BYTES));
  }

  /** The next 16 bits; throws RangeError at the end. */
  u16(): number {
    return this.#view.getUint16(this.#advance(U16_BYTES), NATIVE_LITTLE_ENDIAN);
  }

  /** The next 32 bits; throws RangeError at the end. */
  u32(): number {
    return this.#view.getUint32(this.#advance(U32_BYTES), NATIVE_LITTLE_ENDIAN);
  }

  /** The next 64 bits, exact; throws RangeError at the end. */
  u64(): bigint {
    return this.#view.getBigUint64(this.#advance(U64_BYTES), NATIVE_LITTLE_ENDIAN);
  }

  /** A copy of the next `count` bytes, because receive buffers are used again; throws RangeError at the end. */
  bytes(count: number): Uint8Array {
    const start = this.#advance(count);
    return this.#bytes.slice(start, start + count);
  }

  #advance(count: number): number {
    const start = this.#offset;
    this.#offset = claim(start, count, this.#bytes.length);
    return start;
  }
}

/**
 * Writes native-endian integers into a buffer of a size that is stated beforehand.
 *
 * Every write throws RangeError when it would pass the end or when the value does not fit its field: a value cut
 * to size would be a different message.
 */
export class Writer {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #offset = 0;

  constructor(totalBytes: number) {
    this.#bytes = new Uint8Array(totalBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  u8(value: number): this {
    this.#view.setUint8(this.#advance(U8_BYTES), checked(value, U8_MAX));
    return this;
  }

  u16(value: number): this {
    this.#view.setUint16(this.#advance(U16_BYTES), checked(value, U16_MAX), NATIVE_LITTLE_ENDIAN);
    return this;
  }

  u32(value: number): this {
    this.#view.setUint32(this.#advance(U32_BYTES), checked(value, U32_MAX), NATIVE_LITTLE_ENDIAN);
    return this;
  }

  u64(value: bigint): this {
    if (value < 0n || value > U64_MAX) throw new RangeError(`expected 0 to 2^64 - 1, got ${String(value)}`);
    this.#view.setBigUint64(this.#advance(U64_BYTES), value, NATIVE_LITTLE_ENDIAN);
    return this;
  }

  bytes(source: Uint8Array): this {
    this.#bytes.set(source, this.#advance(source.length));
    return this;
  }

  /** Writes `count` zero bytes: the padding of a C struct. */
  zeros(count: number): this {
    this.#advance(count);
    return this;
  }

  /** The finished bytes; throws RangeError when fewer were written than were announced. */
  finish(): Uint8Array {
    if (this.#offset !== this.#bytes.length) {
      throw new RangeError(`expected ${this.#bytes.length} bytes, got ${this.#offset}`);
    }
    return this.#bytes;
  }

  #advance(count: number): number {
    const start = this.#offset;
    this.#offset = claim(start, count, this.#bytes.length);
    return start;
  }
}

function checked(value: number, max: number): number {
  if (!Number.isInteger(value) || value < 0 || value > max) {
    throw new RangeError(`expected an integer from 0 to ${max}, got ${value}`);
  }
  return value;
}
