// Bytes as the health tests want them: seen as bytes and as words.
import type { TestedMemory } from '../../daemon/entropy/health-tests.js';

/** A copy of `bytes`, whose length is a multiple of 4. */
export function memoryOf(bytes: Uint8Array): TestedMemory {
  const copy = Buffer.from(new ArrayBuffer(bytes.length));
  copy.set(bytes);
  return { bytes: copy, words: new Int32Array(copy.buffer) };
}
