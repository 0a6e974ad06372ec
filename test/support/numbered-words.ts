// A stream of words that passes every health test and tells of each word where it belongs: numbers, scrambled.
//
// Scrambling is a bijection of 32 bits (twice the finalizer of MurmurHash3, with a key), so no word comes twice and each
// can be unscrambled. Four random bytes are taken for a word that was given with a chance of some 2^-16.

const SOURCE_SHIFT = 28;
const INDEX_MASK = 2 ** SOURCE_SHIFT - 1;
const FIRST_FACTOR = 0x85ebca6b;
const SECOND_FACTOR = 0xc2b2ae35;
const FIRST_INVERSE = inverseOf(FIRST_FACTOR);
const SECOND_INVERSE = inverseOf(SECOND_FACTOR);

/** Word `index` of source `source` (up to 15), and back. */
export class NumberedWords {
  private readonly key: number;

  constructor(key: number) {
    this.key = key;
  }

  wordOf(source: number, index: number): number {
    return mix(mix((source << SOURCE_SHIFT) | index) ^ this.key) >>> 0;
  }

  placeOf(word: number): { readonly source: number; readonly index: number } {
    const number = unmix(unmix(word) ^ this.key);
    return { source: number >>> SOURCE_SHIFT, index: number & INDEX_MASK };
  }
}

function mix(number: number): number {
  let x = number ^ (number >>> 16);
  x = Math.imul(x, FIRST_FACTOR);
  x ^= x >>> 13;
  x = Math.imul(x, SECOND_FACTOR);
  return x ^ (x >>> 16);
}

function unmix(word: number): number {
  let x = word ^ (word >>> 16);
  x = Math.imul(x, SECOND_INVERSE);
  x ^= (x >>> 13) ^ (x >>> 26);
  x = Math.imul(x, FIRST_INVERSE);
  return x ^ (x >>> 16);
}

/** Modulo 2^32, of an odd number, by Newton's method: each step doubles the bits that are right. */
function inverseOf(factor: number): number {
  let inverse = factor;
  for (let step = 0; step < 5; step++) inverse = Math.imul(inverse, 2 - Math.imul(factor, inverse));
  return inverse;
}
