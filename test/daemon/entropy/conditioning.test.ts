// Conditioning: SHA-512 over enough of a weak source's bytes, in place, and nothing else left behind.
import { createHash } from 'node:crypto';
import t from 'tap';
import { conditionInPlace, inputBytesFor, LEAST_MIN_ENTROPY } from '../../../daemon/entropy/conditioning.js';
import { BLOCK_BYTES } from '../../../daemon/entropy/health-tests.js';
import { goodBytes } from '../../support/good-bytes.js';

t.test('enough goes in: 64 bits more than come out', (t) => {
  for (const [minEntropy, wanted] of [
    [8, 72],
    [4, 144],
    [1, 576],
    [7.9, 73],
    [0.25, 2304],
  ] as const) {
    t.equal(inputBytesFor(minEntropy), wanted, `H = ${minEntropy}`);
    t.ok(inputBytesFor(minEntropy) * minEntropy >= 576);
  }
  t.ok(inputBytesFor(LEAST_MIN_ENTROPY) <= BLOCK_BYTES, 'a block gives something, whatever is claimed');
  t.end();
});

t.test('each digest is that of its own bytes, each used once; the rest is wiped', (t) => {
  for (const minEntropy of [7.9, 4, 1, 0.25]) {
    const input = goodBytes(BLOCK_BYTES);
    const bytes = Buffer.from(input);
    const made = conditionInPlace(bytes, minEntropy);
    const length = inputBytesFor(minEntropy);
    t.equal(made, 64 * Math.floor(BLOCK_BYTES / length));
    for (let i = 0; i < made / 64; i++) {
      const wanted = createHash('sha512')
        .update(input.subarray(i * length, (i + 1) * length))
        .digest();
      t.ok(bytes.subarray(64 * i, 64 * (i + 1)).equals(wanted), `digest ${i} for H = ${minEntropy}`);
    }
    t.ok(bytes.subarray(made).every((byte) => byte === 0));
  }
  t.end();
});
