// Text in the cells of a terminal: cut and filled to a width, whatever its characters take.
import stringWidth from 'string-width';
import { printable } from './output.js';

const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' });

/** `text` in exactly `width` cells: filled with spaces, or cut, with a sign that there is more. */
export function fit(text: string, width: number, right = false): string {
  const clean = printable(text);
  const taken = stringWidth(clean);
  if (taken <= width) {
    const space = ' '.repeat(width - taken);
    return right ? space + clean : clean + space;
  }
  if (width <= 0) return '';
  let cut = '';
  let used = 0;
  for (const { segment } of graphemes.segment(clean)) {
    const cells = stringWidth(segment);
    if (used + cells > width - 1) break;
    cut += segment;
    used += cells;
  }
  return `${cut}…${' '.repeat(width - 1 - used)}`;
}

const LEVELS = '▁▂▃▄▅▆▇█';

/** The last `width` of `values` as bars, the highest of them full; nothing at all is the lowest bar. */
export function sparkline(values: readonly number[], width: number): string {
  const shown = values.slice(-width);
  const most = Math.max(...shown, 0);
  const bars = shown.map((value) => {
    const level = most === 0 ? 0 : Math.ceil((value / most) * (LEVELS.length - 1));
    return LEVELS[level] ?? '';
  });
  return bars.join('').padStart(width);
}
