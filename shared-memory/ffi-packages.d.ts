// Types of what shared-memory/ffi.ts uses of the two FFI packages; the low-level call has no published types.

declare module 'ffi-napi' {
  interface CTypeOf {
    readonly size: number;
  }
  const ffi: {
    CIF(result: CTypeOf, args: readonly CTypeOf[]): Buffer;
    DynamicLibrary: new (path: string | null, flags?: number) => { get(symbol: string): Buffer };
    RTLD_NOW: number;
  };
  export default ffi;
}

declare module 'ffi-napi/lib/bindings.js' {
  const bindings: {
    /** Calls `fn` as described by `cif`; `args` holds one pointer to each argument's storage. */
    /** The same on a thread of libuv's pool; `done` runs in the event loop of the caller. */
    ffi_call_async(cif: Buffer, fn: Buffer, result: Buffer, args: Buffer, done: () => void): void;
    ffi_call(cif: Buffer, fn: Buffer, result: Buffer, args: Buffer): void;
  };
  export default bindings;
}

declare module 'ref-napi' {
  interface CTypeOf {
    readonly size: number;
  }
  const ref: {
    types: Record<'int' | 'uint32' | 'int64' | 'size_t', CTypeOf>;
    refType(to: string): CTypeOf;
    address(buffer: Buffer): number;
    readPointer(buffer: Buffer, offset: number, length: number): Buffer;
    writePointer(buffer: Buffer, offset: number, pointer: Buffer): void;
  };
  export default ref;
}
