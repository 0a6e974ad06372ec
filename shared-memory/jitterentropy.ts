// libjitterentropy, version 3: entropy from the jitter of the CPU's own timing. Loaded by name where it is installed.
// Source: jitterentropy(3), jitterentropy.h.
import { type Library, NativeMemory, openLibrary, PreparedCall } from './ffi.js';

/** The name that version 3 of the library has on every distribution. */
export const JITTERENTROPY_SONAME = 'libjitterentropy.so.3';

/** Flag: the library's own SP 800-90B health tests count, also where the kernel is not in FIPS mode. */
const JENT_FORCE_FIPS = 1 << 5;
/** 0: the library chooses how much it oversamples. */
const DEFAULT_OSR = 0;
const POINTER_BYTES = 8;

/** The library with room for one collector; results are the library's own. */
export interface JitterLibrary {
  /** Self-test and start-up test: 0, or a code of the library. Some 0.1 s. */
  init(): number;
  /** Makes the collector; false when it cannot. */
  allocate(): boolean;
  /**
   * Waits until `length` bytes are stored at `address`: `length`, or a negative code of the library.
   * SAFETY: `address` must be writable for `length` bytes, and there is a collector.
   */
  read(address: number, length: number): number;
  /** Frees the collector, if there is one. */
  free(): void;
}

/** Loads the library, by default under its usual name; undefined when it is not installed. */
export function loadJitterLibrary(name: string = JITTERENTROPY_SONAME): JitterLibrary | undefined {
  const library = openLibrary(name);
  return library === undefined ? undefined : bind(library);
}

/** jent_read_entropy_safe() ends in this when the start-up test fails again: the collector is freed by then. */
const COLLECTOR_GONE = -1;

function bind(library: Library): JitterLibrary {
  const initCall = new PreparedCall('jent_entropy_init', 'int', [], library);
  const allocateCall = new PreparedCall('jent_entropy_collector_alloc', 'pointer', ['uint', 'uint'], library);
  // The "safe" variant runs the start-up test again and oversamples more after a health failure, before it gives up.
  const readCall = new PreparedCall(
    'jent_read_entropy_safe',
    'long',
    ['pointer', 'pointer', 'size'],
    library,
  );
  const freeCall = new PreparedCall('jent_entropy_collector_free', 'pointer', ['pointer'], library);
  /** A struct rand_data *, which the library may replace during a read. */
  const collector = new NativeMemory(POINTER_BYTES);
  readCall.setMemory(0, collector);
  return {
    init: () => initCall.call(),
    allocate: () => {
      allocateCall.setInt(0, DEFAULT_OSR);
      allocateCall.setInt(1, JENT_FORCE_FIPS);
      collector.setWide(0, allocateCall.callForAddress());
      return !isNull(collector);
    },
    read: (address, length) => {
      readCall.setWide(1, address);
      readCall.setWide(2, length);
      const result = readCall.call();
      // What the cell points to was freed, or is NULL: freed once more it would be a double free.
      if (result === COLLECTOR_GONE) collector.setWide(0, 0);
      return result;
    },
    free: () => {
      if (isNull(collector)) return;
      freeCall.setWide(0, collector.bytes.readUIntLE(0, 6));
      freeCall.call();
      collector.setWide(0, 0);
    },
  };
}

function isNull(pointer: NativeMemory): boolean {
  return pointer.words[0] === 0 && pointer.words[1] === 0;
}
