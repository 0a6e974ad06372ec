// Finds 64-byte blocks that were seen before: the replay of a read, which passes every statistical test.
//
// Runs on every window of a source before its bytes are released. The blocks themselves are handed out to guests, so
// only a keyed fingerprint of 64 of their 512 bits is kept.
import { randomFillSync } from 'node:crypto';

/** What is compared: small enough to find a replayed request of a guest, large enough never to repeat by chance. */
export const BLOCK_WORDS = 16;
/** Slots of the table: twice the 1 024 blocks that should be found, since a new block takes the place of another. */
export const REMEMBERED_BLOCKS = 2048;
const SLOT_MASK = REMEMBERED_BLOCKS - 1;
/** Odd, so that each step of a lane can be undone and no two states fall together; the bits are those of 2^32 / golden ratio. */
const MULTIPLIER = 0x9e3779b1 | 0;
/** As in SipHash-c-3, after the last word. */
const FINAL_ROUNDS = 3;

/**
 * The last blocks' fingerprints, by their own hash.
 *
 * Sixteen words are folded into four lanes that start from a random key, then mixed by rounds of HalfSipHash (Aumasson and
 * Bernstein, SipHash, §2; the 32-bit variant's rotations) into a slot number and two words, which are stored. Folding is a
 * bijection of each lane for each word, so blocks of random bytes give random lanes: a good block matches its slot with a
 * chance of 2^-64. What is stored cannot be turned back into a block: 448 bits are lost. To check a guess for the rest one
 * needs the key and all but a few bytes of that block; nothing else rests on this fingerprint.
 */
export class RepeatedBlocks {
  private readonly slots = new Int32Array(2 * REMEMBERED_BLOCKS);
  private readonly key = randomFillSync(new Int32Array(4));

  /** Remembers the block of {@link BLOCK_WORDS} words at `first`; true when the same one was seen not long ago. Allocates nothing. */
  seenBefore(words: Int32Array, first: number): boolean {
    const { key, slots } = this;
    let a = key[0] ?? 0;
    let b = key[1] ?? 0;
    let c = key[2] ?? 0;
    let d = key[3] ?? 0;
    for (let word = first; word < first + BLOCK_WORDS; word += 4) {
      a = Math.imul(a ^ (words[word] ?? 0), MULTIPLIER);
      b = Math.imul(b ^ (words[word + 1] ?? 0), MULTIPLIER);
      c = Math.imul(c ^ (words[word + 2] ?? 0), MULTIPLIER);
      d = Math.imul(d ^ (words[word + 3] ?? 0), MULTIPLIER);
      // Products carry upwards only: turned, so that high bits reach the others too.
      a = (a << 13) | (a >>> 19);
      b = (b << 13) | (b >>> 19);
      c = (c << 13) | (c >>> 19);
      d = (d << 13) | (d >>> 19);
    }
    for (let round = 0; round < FINAL_ROUNDS; round++) {
      a = (a + b) | 0;
      b = ((b << 5) | (b >>> 27)) ^ a;
      a = (a << 16) | (a >>> 16);
      c = (c + d) | 0;
      d = ((d << 8) | (d >>> 24)) ^ c;
      a = (a + d) | 0;
      d = ((d << 7) | (d >>> 25)) ^ a;
      c = (c + b) | 0;
      b = ((b << 13) | (b >>> 19)) ^ c;
      c = (c << 16) | (c >>> 16);
    }
    // Of the four words the sums are kept and a third tells the slot: independent, so the slot takes nothing from the 64 bits.
    const slot = (b & SLOT_MASK) << 1;
    const low = a ^ b;
    const high = c ^ d;
    const seen = slots[slot] === low && slots[slot + 1] === high;
    slots[slot] = low;
    slots[slot + 1] = high;
    return seen;
  }
}
