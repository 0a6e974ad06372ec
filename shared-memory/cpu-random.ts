// The CPU's own random instructions, RDRAND and RDSEED, through the small functions that OpenSSL has for them and that
// the node binary exports: no machine code of ours. Source: Intel SDM volume 1, "Random number generator instructions".
import { hasSymbol, openLibrary, PreparedCall } from './ffi.js';

export type CpuInstruction = 'rdrand' | 'rdseed';

/**
 * Stores up to `length` bytes at `address` and gives how many; fewer when the instruction had no value ready.
 * SAFETY: `address` must be writable for `length` bytes.
 */
export type CpuRandomCall = (address: number, length: number) => number;

/** Where a node that links OpenSSL dynamically would have the functions, if its distribution exported them. */
const OPENSSL_LIBRARY = 'libcrypto.so.3';

/** Binds an instruction; undefined when neither this node nor the system's OpenSSL exports the function. */
export function bindCpuRandom(instruction: CpuInstruction): CpuRandomCall | undefined {
  const symbol = `OPENSSL_ia32_${instruction}_bytes`;
  const library = hasSymbol(symbol) ? undefined : openLibrary(OPENSSL_LIBRARY);
  if (!hasSymbol(symbol, library)) return undefined;
  const call = new PreparedCall(symbol, 'size', ['pointer', 'size'], library);
  return (address, length) => {
    call.setWide(0, address);
    call.setWide(1, length);
    return call.call();
  };
}
