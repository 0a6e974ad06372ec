// Bytes that are to be tested, as the health tests see them.

/** The same memory in two ways: as bytes, and as words of the processor's byte order. */
export interface TestedMemory {
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
}
