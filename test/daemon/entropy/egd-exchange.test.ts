// The EGD protocol: requests as they go out, replies however they are cut up, and what no server may send.
import fc from 'fast-check';
import t from 'tap';
import { EgdExchange } from '../../../daemon/entropy/egd-exchange.js';

/** An exchange that has asked for `asked`, and copies of the replies that came whole. */
function exchange(asked: readonly number[]): {
  readonly exchange: EgdExchange;
  readonly replies: number[][];
  readonly reply: Buffer;
} {
  const replies: number[][] = [];
  const reply = Buffer.alloc(255);
  const made = new EgdExchange(reply, (bytes) => replies.push([...bytes]));
  for (const count of asked) made.request(count);
  return { exchange: made, replies, reply };
}

t.test('row 161: a request is 0x01 and a count from 1 to 255', (t) => {
  const { exchange: made } = exchange([]);
  for (const [bytes, count] of [
    [1, 1],
    [255, 255],
    [256, 255],
    [100_000, 255],
  ] as const)
    t.same([...made.request(bytes)], [1, count]);
  t.equal(made.requestsInFlight, 4);
  t.equal(made.bytesInFlight, 1 + 255 + 255 + 255);
  t.end();
});

t.test('replies in full, rows 155: with fewer bytes than asked, and with none', (t) => {
  const { exchange: made, replies, reply } = exchange([3, 3, 3, 3]);
  t.equal(made.receive(Uint8Array.of(3, 7, 8, 9, 1, 5, 0)), undefined);
  t.same(replies, [[7, 8, 9], [5], []]);
  t.equal(made.requestsInFlight, 1);
  t.ok(
    reply.every((byte) => byte === 0),
    'each is wiped behind its use',
  );
  t.end();
});

t.test('rows 153 and 159: more than was asked for, or unasked, is an error; nothing of it is used', (t) => {
  const more = exchange([3]);
  t.match(more.exchange.receive(Uint8Array.of(4, 1, 2, 3, 4)), /promised 4 bytes where 3 were asked/);
  t.same(more.replies, []);
  const second = exchange([3, 1]);
  t.match(second.exchange.receive(Uint8Array.of(2, 1, 2, 2, 1, 2)), /promised 2 bytes where 1 were asked/);
  t.same(second.replies, [[1, 2]]);
  const unasked = exchange([1]);
  t.match(unasked.exchange.receive(Uint8Array.of(1, 9, 0)), /nobody asked for/);
  t.same(unasked.replies, [[9]]);
  t.match(exchange([]).exchange.receive(Uint8Array.of(0)), /nobody asked for/);
  t.end();
});

t.test('row 156: the fragment of a reply is forgotten and wiped with its connection', (t) => {
  const { exchange: made, replies, reply } = exchange([5, 5]);
  t.equal(made.receive(Uint8Array.of(5, 1, 2, 3)), undefined);
  t.same([...reply.subarray(0, 4)], [1, 2, 3, 0]);
  made.reset();
  t.ok(reply.every((byte) => byte === 0));
  t.equal(made.requestsInFlight, 0);
  made.request(2);
  t.equal(made.receive(Uint8Array.of(2, 8, 9)), undefined);
  t.same(replies, [[8, 9]]);
  t.end();
});

/** What a server's bytes mean, by a second reading of the protocol: replies, and whether all of it was right. */
function naive(asked: readonly number[], bytes: readonly number[]): { replies: number[][]; right: boolean } {
  const replies: number[][] = [];
  let rest = bytes;
  for (const limit of asked) {
    const [count] = rest;
    if (count === undefined) return { replies, right: true };
    if (count > limit) return { replies, right: false };
    if (rest.length - 1 < count) return { replies, right: true };
    replies.push(rest.slice(1, 1 + count));
    rest = rest.slice(1 + count);
  }
  return { replies, right: rest.length === 0 };
}

t.test('any bytes, cut anywhere, mean the same as to a naive reader', (t) => {
  const small = fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 40 });
  const asked = fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 6 });
  const cuts = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 });
  fc.assert(
    fc.property(asked, small, cuts, (counts, bytes, sizes) => {
      const { exchange: made, replies } = exchange(counts);
      let wrong: string | undefined;
      for (let at = 0, i = 0; at < bytes.length && wrong === undefined; i++) {
        const size = sizes[i % sizes.length] ?? 1;
        wrong = made.receive(Uint8Array.from(bytes.slice(at, at + size)));
        at += size;
      }
      const expected = naive(counts, bytes);
      t.equal(wrong === undefined, expected.right);
      return JSON.stringify(replies) === JSON.stringify(expected.replies);
    }),
    { numRuns: 500 },
  );
  t.end();
});
