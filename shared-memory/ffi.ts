// Prepared calls into libc and other shared libraries: the only file that imports the FFI packages.
//
// A prepared call is bound once: its CIF, its argument storage and its result storage are made when the module
// loads. A call then stores numbers into that storage and enters libffi directly, which takes 0.3 us where the
// package's own `Library` takes 4 to 40 us and allocates. Each thread loads this module for itself, so storage
// is never shared.
import ffi from 'ffi-napi';
import bindings from 'ffi-napi/lib/bindings.js';
import ref from 'ref-napi';

/** A C argument or result: `int` and `uint` take 4 bytes; `long`, `size` and `pointer` take 8. */
export type CType = 'int' | 'uint' | 'long' | 'size' | 'pointer';

const C_TYPES = {
  int: ref.types.int,
  uint: ref.types.uint32,
  long: ref.types.int64,
  size: ref.types.size_t,
  pointer: ref.refType('void'),
} as const;

/** Each argument has a slot of 8 bytes, whatever its type: two 32-bit words, the low one first. */
const WORDS_PER_ARGUMENT = 2;
const SLOT_BYTES = 8;
const TWO_32 = 2 ** 32;

/** A shared library that was opened by its name; it stays loaded for as long as the process runs. */
export type Library = InstanceType<typeof ffi.DynamicLibrary>;

/** The symbols of this process: libc, and what the node binary itself exports. */
const ownProcess: Library = new ffi.DynamicLibrary(null, ffi.RTLD_NOW);

/** Loads a library by its soname, as `libjitterentropy.so.3`, or by its path; undefined when there is none. */
export function openLibrary(name: string): Library | undefined {
  try {
    return new ffi.DynamicLibrary(name, ffi.RTLD_NOW);
  } catch {
    return undefined;
  }
}

/** True when a library, or by default this process, exports `symbol`. */
export function hasSymbol(symbol: string, library: Library = ownProcess): boolean {
  try {
    library.get(symbol);
    return true;
  } catch {
    return false;
  }
}

/**
 * Memory of a fixed address for native code: an ArrayBuffer of its own, which V8 never moves.
 *
 * The address is valid for as long as this object is reachable, so its owner keeps the object, not the number.
 */
export class NativeMemory {
  readonly bytes: Buffer;
  /** The same memory as 32-bit words. */
  readonly words: Int32Array;
  readonly address: number;

  /** `length` in bytes, at least 4; zeroed. */
  constructor(length: number) {
    const memory = new ArrayBuffer(Math.ceil(length / 4) * 4);
    this.bytes = Buffer.from(memory, 0, length);
    this.words = new Int32Array(memory);
    this.address = ref.address(this.bytes);
  }

  /** Stores an unsigned integer below 2^53 as a 64-bit one at `offset`, a multiple of 4. */
  setWide(offset: number, value: number): void {
    storeU64(this.words, offset >> 2, value);
  }
}

/** A native function whose call storage was made once. Not re-entrant: store the arguments, then call. */
export class PreparedCall {
  private readonly cif: Buffer;
  private readonly fn: Buffer;
  private readonly resultStorage: Buffer;
  private readonly argumentPointers: Buffer;
  private readonly words: Int32Array;
  private readonly resultWords: Int32Array;
  /** What setMemory() was given: a closure keeps only what its code names. */
  private readonly kept: NativeMemory[] = [];

  /**
   * Binds `symbol` of `library`, by default of this process.
   *
   * Throws an Error when there is no such symbol.
   */
  constructor(symbol: string, result: CType, args: readonly CType[], library: Library = ownProcess) {
    this.fn = library.get(symbol);
    this.cif = ffi.CIF(
      C_TYPES[result],
      args.map((type) => C_TYPES[type]),
    );
    const storage = new NativeMemory(Math.max(1, args.length) * SLOT_BYTES);
    const pointers = new NativeMemory(Math.max(1, args.length) * SLOT_BYTES);
    const resultStorage = new NativeMemory(SLOT_BYTES);
    for (let i = 0; i < args.length; i++) pointers.setWide(i * SLOT_BYTES, storage.address + i * SLOT_BYTES);
    this.argumentPointers = pointers.bytes;
    this.resultStorage = resultStorage.bytes;
    this.words = storage.words;
    this.resultWords = resultStorage.words;
  }

  /** Stores a 32-bit argument. */
  setInt(position: number, value: number): void {
    this.words[position * WORDS_PER_ARGUMENT] = value;
  }

  /** Stores a 64-bit argument: an address or a count, an integer from 0 to 2^53. */
  setWide(position: number, value: number): void {
    storeU64(this.words, position * WORDS_PER_ARGUMENT, value);
  }

  /** Stores the address of memory that this call is to use from now on, and keeps that memory from being collected. */
  setMemory(position: number, memory: NativeMemory): void {
    this.kept[position] = memory;
    this.setWide(position, memory.address);
  }

  /** Calls; gives the low 32 bits of the result as a signed number, right for `int` and for any short count. */
  call(): number {
    // SAFETY: all four buffers live as long as this object, and the stored arguments are the caller's promise.
    bindings.ffi_call(this.cif, this.fn, this.resultStorage, this.argumentPointers);
    return this.resultWords[0] ?? 0;
  }

  /** Calls on a thread of libuv's pool, where it may wait. This object is in use, and must not be called, until then. */
  callOnPool(): Promise<void> {
    // SAFETY: the closure keeps this object, and with it all four buffers, until the call has returned.
    return new Promise((resolve) => {
      bindings.ffi_call_async(this.cif, this.fn, this.resultStorage, this.argumentPointers, () => {
        this.words.fill(0);
        resolve();
      });
    });
  }

  /** Calls; gives the result as an address (user addresses stay below 2^47), or -1 for MAP_FAILED. */
  callForAddress(): number {
    this.call();
    const low = (this.resultWords[0] ?? 0) >>> 0;
    const high = this.resultWords[1] ?? 0;
    return high * TWO_32 + low;
  }
}

/** Stores an unsigned integer below 2^53 as two words, little-endian. */
function storeU64(words: Int32Array, index: number, value: number): void {
  words[index] = value | 0;
  words[index + 1] = Math.floor(value / TWO_32);
}

/** Where a symbol of this process lies. Throws when there is none of that name. */
export function symbolAddress(symbol: string): number {
  return ref.address(ownProcess.get(symbol));
}

/** The packages make no view of 2^30 bytes or more. */
export const MAX_VIEW_BYTES = 2 ** 30 - 1;

const pointerCell = new NativeMemory(SLOT_BYTES);

/**
 * A view of native memory: `length` bytes from `address`, 1 to {@link MAX_VIEW_BYTES}.
 *
 * Nothing keeps the memory mapped: the caller owns it and drops every view before it unmaps. A view that is
 * merely unreachable is harmless, since freeing it does not touch its bytes.
 */
export function viewOf(address: number, length: number): Buffer {
  if (!(length >= 1 && length <= MAX_VIEW_BYTES)) throw new RangeError(`view of ${length} bytes`);
  pointerCell.setWide(0, address);
  return ref.readPointer(pointerCell.bytes, 0, length);
}
