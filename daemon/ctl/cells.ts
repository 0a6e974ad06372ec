// Text in a number of columns of a terminal: measured as terminals do, cut between characters and never inside one; and
// sparklines.
import stringWidth from 'string-width';
import type { PastRates } from './top-history.js';

/** What can be drawn with. */
export interface Glyphs {
  /** From nothing to the most. */
  readonly spark: readonly string[];
  /** Stands for what was cut off. */
  readonly cut: string;
}

export const UNICODE: Glyphs = { spark: ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'], cut: '…' };
export const ASCII: Glyphs = { spark: ['_', '.', '-', ':', '=', '+', '*', '#'], cut: '~' };

const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' });

/** Columns that `text` takes; colours take none. */
export function widthOf(text: string): number {
  return stringWidth(text);
}

/** `text` in exactly `width` columns, to the left or the right of them; what does not fit is cut. */
export function fitted(text: string, width: number, options: { glyphs: Glyphs; right?: boolean }): string {
  const cut = clipped(text, width, options.glyphs);
  const space = ' '.repeat(Math.max(0, width - widthOf(cut)));
  return options.right === true ? space + cut : cut + space;
}

/** `text`, or as much of its front as fits `width` columns with a sign that something is missing. No colours in it. */
export function clipped(text: string, width: number, { cut }: Glyphs): string {
  if (widthOf(text) <= width) return text;
  if (width < 1) return '';
  let front = '';
  let columns = 0;
  for (const { segment } of graphemes.segment(text)) {
    columns += widthOf(segment);
    if (columns > width - 1) break;
    front += segment;
  }
  return front + cut;
}

/** The last rates, a character each, the newest to the right; scaled to the most among them; nothing where one is unknown. */
export function sparkline(past: PastRates, width: number, { spark }: Glyphs): string {
  const shown = past.slice(-width);
  const most = Math.max(0, ...shown.map((rate) => rate ?? 0));
  const marks = shown.map((rate) => (rate === null ? ' ' : (spark[level(rate, most, spark.length)] ?? ' ')));
  return marks.join('').padStart(width);
}

/** The lowest mark is for nothing alone: a little is seen to be something. */
function level(rate: number, most: number, levels: number): number {
  return rate <= 0 || most <= 0 ? 0 : Math.max(1, Math.round((rate / most) * (levels - 1)));
}
