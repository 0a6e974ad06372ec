// Makes full entropy of a source that claims less: SHA-512 over as many bytes as hold 64 bits more than come out.
//
// A guest credits each byte with 8 bits, so what a noise source gives with fewer must not reach it as it is.
// Source: NIST SP 800-90B §3.1.5.1.2 (a vetted conditioning function) and SP 800-90C (full entropy: 64 bits more in).
import { createHash } from 'node:crypto';

const DIGEST_BYTES = 64;
const SURPLUS_BITS = 64;

/** Input bytes for one digest of full entropy, when each holds `minEntropy` bits. */
export function inputBytesFor(minEntropy: number): number {
  return Math.ceil((8 * DIGEST_BYTES + SURPLUS_BITS) / minEntropy);
}

/** The least that is allowed to be claimed: below it a block would not give one digest. In bits for each byte. */
export const LEAST_MIN_ENTROPY = 0.25;

/** Conditions `bytes` in place: the length of what is at their front then; the rest is wiped. */
export function conditionInPlace(bytes: Uint8Array, minEntropy: number): number {
  const inputBytes = inputBytesFor(minEntropy);
  let made = 0;
  for (let at = 0; at + inputBytes <= bytes.length; at += inputBytes) {
    const digest = createHash('sha512')
      .update(bytes.subarray(at, at + inputBytes))
      .digest();
    // A digest is shorter than its input, so nothing is overwritten that is still to be read.
    bytes.set(digest, made);
    digest.fill(0);
    made += DIGEST_BYTES;
  }
  bytes.fill(0, made);
  return made;
}
