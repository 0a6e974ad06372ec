// The message codec: vectors through one runner, a naive second codec as oracle, and properties over random bytes.
// Rows of bad-input.md: 13, 16, 17, 47, 51, 68.

import assert from 'node:assert/strict';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { NATIVE_LITTLE_ENDIAN } from '../../protocol/cursor.js';
import { Fault } from '../../protocol/fault.js';
import {
  decodeFrontendMessage,
  encodeFrontendMessage,
  type FrontendMessage,
  MAX_MEM_REGIONS,
} from '../../protocol/message.js';
import { anyMessage, ARBITRARIES } from './messages.js';
import { type Fields, oracleDecode, oracleEncode } from './oracle.js';
import { fromHex, INVALID, VALID, type Vector } from './vectors.js';

const RUNS = 2_000;

/** Flips one bit, cuts the end off, or adds bytes. */
const mutation: fc.Arbitrary<(bytes: Uint8Array) => Uint8Array> = fc.oneof(
  fc.nat().map((at) => (bytes: Uint8Array) => {
    const mutant = bytes.slice();
    const index = Math.floor(at / 8) % Math.max(1, mutant.length);
    mutant.set([(mutant[index] ?? 0) ^ (1 << (at % 8))].slice(0, mutant.length), index);
    return mutant;
  }),
  fc.nat(40).map((count) => (bytes: Uint8Array) => bytes.slice(0, Math.max(0, bytes.length - count))),
  fc
    .uint8Array({ minLength: 1, maxLength: 40 })
    .map((more) => (bytes: Uint8Array) => Uint8Array.from([...bytes, ...more])),
);

function runVector(t: Test, { title, request, payload, fields, fault, rewritten }: Vector): void {
  const name = `${request}: ${title}`;
  const decoded = decodeFrontendMessage(request, fromHex(payload));
  if (fault !== undefined) {
    t.ok(decoded instanceof Fault, name);
    t.match(decoded, { scope: fault[0], code: fault[1], message: /^expected .*, got / }, name);
    return;
  }
  if (decoded instanceof Fault) return void t.fail(`${name}: ${decoded.message}`);
  t.strictSame(decoded, { request, ...fields }, name);
  t.strictSame(encodeFrontendMessage(decoded), fromHex(rewritten ?? payload), name);
}

t.equal(MAX_MEM_REGIONS, 8);

t.test('wire vectors', { skip: NATIVE_LITTLE_ENDIAN ? false : 'vectors are little-endian' }, (t) => {
  for (const vector of [...VALID, ...INVALID]) runVector(t, vector);
  const numbers = (vectors: readonly Vector[]): Set<number> => new Set(vectors.map(({ request }) => request));
  t.equal(numbers(VALID).size, 44, 'every request has a valid vector');
  t.equal(numbers(INVALID).size, 43 + 5, 'and an invalid one, but for the crypto session; and the unknown');
  t.end();
});

t.test('row 16: a memory table may be longer than its regions, up to the largest payload', (t) => {
  const head = fromHex('01000000 00000000');
  for (const size of [40, 41, 71, 72, 264, 4096]) {
    const payload = new Uint8Array(size);
    payload.set(head);
    const decoded = decodeFrontendMessage(5, payload);
    t.match(decoded, { regions: [{ size: 0n }] }, `${size} bytes`);
  }
  t.end();
});

t.test('byte arrays are copies: the receive buffer may be used again', (t) => {
  const buffer = new Uint8Array(16).fill(7);
  const shared = decodeFrontendMessage(41, buffer);
  const session = decodeFrontendMessage(26, buffer);
  buffer.fill(0);
  t.match(shared, { uuid: new Uint8Array(16).fill(7) });
  t.match(session, { session: new Uint8Array(16).fill(7) });
  t.end();
});

t.test('encode and decode are inverse, and the oracle writes the same bytes, for each request', (t) => {
  t.strictSame(
    ARBITRARIES.map(({ request }) => request),
    Array.from({ length: 44 }, (_, index) => index + 1),
  );
  for (const { request, messages } of ARBITRARIES) {
    fc.assert(
      fc.property(messages, (message) => {
        const bytes = encodeFrontendMessage(message);
        assert.deepEqual(decodeFrontendMessage(request, bytes), message);
        assert.deepEqual(Array.from(bytes), Array.from(oracleEncode(request, { ...message })));
      }),
    );
  }
  t.end();
});

t.test('random bytes give a message or a fault, as the oracle says, and never an exception', (t) => {
  const request = fc.oneof(fc.nat(46), fc.integer({ min: 0, max: 0xffff_ffff }));
  const size = fc.constantFrom(0, 1, 7, 8, 9, 12, 16, 20, 24, 32, 40, 72, 264);
  const payload = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    size.chain((length) => fc.uint8Array({ minLength: length, maxLength: length })),
    size.chain((length) => fc.uint8Array({ minLength: length, maxLength: length, max: 2 })),
  );
  fc.assert(
    fc.property(request, payload, (number, bytes) => void agreesWithOracle(number, bytes)),
    { numRuns: 10 * RUNS },
  );
  t.end();
});

t.test('a changed message is refused or read as what it now is: its bytes come back', (t) => {
  const seen = { messages: 0, faults: 0 };
  fc.assert(
    fc.property(anyMessage, mutation, (message, mutate) => {
      const bytes = mutate(encodeFrontendMessage(message));
      const decoded = agreesWithOracle(message.request, bytes);
      if (decoded === undefined) {
        seen.faults++;
        return;
      }
      seen.messages++;
      assertSameBytes(decoded, bytes);
    }),
    { numRuns: 5 * RUNS },
  );
  t.ok(seen.messages > RUNS / 2, `${seen.messages} mutants were messages`);
  t.ok(seen.faults > RUNS / 2, `${seen.faults} mutants were faults`);
  t.end();
});

/** Compares with the oracle's verdict; returns the message, or undefined when both refuse. */
function agreesWithOracle(request: number, bytes: Uint8Array): FrontendMessage | undefined {
  const verdict = oracleDecode(request, bytes);
  const decoded = decodeFrontendMessage(request, bytes);
  if (decoded instanceof Fault) {
    const fields: Fields = { scope: decoded.scope, code: decoded.code };
    assert.deepEqual(fields, verdict);
    return undefined;
  }
  assert.ok('fields' in verdict, `the oracle refuses request ${request}`);
  assert.deepEqual(decoded, { request, ...verdict.fields });
  return decoded;
}

/** The message written again is `bytes`, but for those that the oracle says have no meaning. */
function assertSameBytes(message: FrontendMessage, bytes: Uint8Array): void {
  const verdict = oracleDecode(message.request, bytes);
  const meaningful = 'fields' in verdict ? verdict.ignoredFrom : 0;
  const again = encodeFrontendMessage(message);
  assert.deepEqual(Array.from(again.subarray(0, meaningful)), Array.from(bytes.subarray(0, meaningful)));
  assert.ok(again.subarray(meaningful).every((byte) => byte === 0));
}
