// JSON as the control socket reads it: row 168 of ARCHITECTURE.md, "Bad input", case by case.
import t from 'tap';
import { escapeRaw, parseJson } from '../../../daemon/control/json.js';
import { Fault } from '../../../protocol/fault.js';

const ACCEPTED: readonly (readonly [string, unknown])[] = [
  ['{}', {}],
  ['null', null],
  [' { "a" : [ 1 , "b:c" , { "a" : true } ] } ', { a: [1, 'b:c', { a: true }] }],
  ['{"a":{"b":1},"c":{"b":1}}', { a: { b: 1 }, c: { b: 1 } }],
  ['[{"a":1},{"a":1}]', [{ a: 1 }, { a: 1 }]],
  ['{"\\u0061":"{\\"a\\":1,\\"a\\":2}"}', { a: '{"a":1,"a":2}' }],
  ['"\\ud83d\\ude00"', '\u{1f600}'],
];

t.test('what is accepted', (t) => {
  for (const [text, value] of ACCEPTED) t.same(parseJson(Buffer.from(text)), value, text);
  t.end();
});

const REFUSED: readonly (readonly [string, string | Uint8Array, RegExp])[] = [
  ['nothing', '', /expected JSON/],
  ['half an object', '{"a":', /expected JSON/],
  ['two values', '{} {}', /expected JSON/],
  ['a comment', '{} // no', /expected JSON/],
  ['NaN', 'NaN', /expected JSON/],
  ['invalid UTF-8', Buffer.from([0x22, 0xff, 0x22]), /UTF-8/],
  ['an overlong encoding', Buffer.from([0x22, 0xc0, 0xaf, 0x22]), /UTF-8/],
  ['a surrogate in UTF-8', Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]), /UTF-8/],
  ['a byte order mark', '\uFEFF{}', /expected JSON/],
  ['NUL', '"\\u0000"', /NUL/],
  ['NUL in a key', '{"a\\u0000":1}', /NUL/],
  ['half a surrogate pair', '["\\ud800"]', /half a character/],
  ['a key twice', '{"a":1,"a":2}', /a twice/],
  ['a key twice, once escaped', '{"a":1,"\\u0061":2}', /a twice/],
  ['a key twice, deep inside', '[{"x":{"a":1,"b":{},"a":2}}]', /a twice/],
  ['__proto__', '{"__proto__":{"paused":true}}', /got __proto__/],
  ['__proto__, escaped', '{"__pro\\u0074o__":1}', /got __proto__/],
  ['constructor', '{"a":{"constructor":{}}}', /got constructor/],
  ['prototype', '{"prototype":1}', /got prototype/],
  ['17 levels', '['.repeat(17) + ']'.repeat(17), /16 levels/],
  ['32 768 levels', '['.repeat(32_768) + ']'.repeat(32_768), /16 levels/],
];

t.test('what is refused', (t) => {
  for (const [title, text, pattern] of REFUSED) {
    const refused = parseJson(Buffer.from(text));
    t.ok(refused instanceof Fault, title);
    t.match(refused, { code: 'bad_json', message: pattern }, title);
  }
  t.equal(({} as { paused?: unknown }).paused, undefined, 'no prototype has changed');
  t.end();
});

t.test('what a terminal would act on is escaped in JSON', (t) => {
  const text = escapeRaw(JSON.stringify({ a: '\x1b[31m\x9b2J\x7f\n' }));
  t.notMatch(text, /\p{Cc}/u);
  t.same(JSON.parse(text), { a: '\x1b[31m\x9b2J\x7f\n' });
  t.end();
});
