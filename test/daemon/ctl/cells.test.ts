// Text in columns of a terminal, and sparklines.
import fc from 'fast-check';
import t from 'tap';
import { ASCII, clipped, fitted, sparkline, UNICODE, widthOf } from '../../../daemon/ctl/cells.js';

await t.test('text is filled to its columns, to the left or the right of them', (t) => {
  t.equal(fitted('web1', 7, { glyphs: UNICODE }), 'web1   ');
  t.equal(fitted('12', 5, { glyphs: UNICODE, right: true }), '   12');
  t.end();
});

await t.test('what does not fit is cut, with a sign', (t) => {
  t.equal(clipped('a-long-name', 6, UNICODE), 'a-lon…');
  t.equal(clipped('a-long-name', 6, ASCII), 'a-lon~');
  t.equal(clipped('exact', 5, UNICODE), 'exact');
  t.equal(clipped('any', 0, UNICODE), '');
  t.end();
});

await t.test('wide characters take two columns and are never halved', (t) => {
  t.equal(widthOf('日本'), 4);
  t.equal(clipped('日本語', 5, UNICODE), '日本…');
  t.equal(fitted('日本語', 4, { glyphs: UNICODE }), '日… ', 'the half of a character is a space');
  t.equal(clipped('👩‍👩‍👧x', 2, UNICODE), '…', 'a character of many code points is one');
  t.equal(clipped('e\u0301e\u0301e\u0301', 2, UNICODE), 'e\u0301…', 'an accent stays with its letter');
  t.end();
});

await t.test('property: whatever the text, it takes the columns that it is given', (t) => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'grapheme', maxLength: 20 }),
      fc.integer({ min: 1, max: 30 }),
      (text, width) => {
        return widthOf(fitted(text, width, { glyphs: UNICODE })) === width;
      },
    ),
  );
  t.end();
});

await t.test('a sparkline is scaled to the most that it shows, the newest to the right', (t) => {
  t.equal(sparkline([0, 50, 100], 3, UNICODE), '▁▅█');
  t.equal(sparkline([100, 50, 0], 3, ASCII), '#=_');
  t.equal(sparkline([1, 2], 5, UNICODE), '   ▅█', 'what is not known yet is empty');
  t.equal(sparkline([1e9, 1, 1, 1], 3, UNICODE), '███', 'what is no longer shown does not count');
  t.end();
});

await t.test('in a sparkline a little is more than nothing, and the unknown is neither', (t) => {
  t.equal(sparkline([0, 1, 1e9], 3, UNICODE), '▁▂█');
  t.equal(sparkline([0, 0], 2, UNICODE), '▁▁');
  t.equal(sparkline([5, null, 5], 3, UNICODE), '█ █');
  t.equal(sparkline([], 3, UNICODE), '   ');
  t.end();
});
