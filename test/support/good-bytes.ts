// Bytes that pass every health test, always the same: what is drawn anew fails a FIPS 140-2 block once in 1 200.
import { createCipheriv } from 'node:crypto';

/** `length` bytes of stream `stream`, from byte `from` (a multiple of 16) on. */
export function goodBytes(length: number, stream = 0, from = 0): Buffer {
  const key = Buffer.alloc(16);
  key.writeUInt32LE(stream);
  const counter = Buffer.alloc(16);
  counter.writeUInt32BE(from / 16, 12);
  return createCipheriv('aes-128-ctr', key, counter).update(Buffer.alloc(length));
}
