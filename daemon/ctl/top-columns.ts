// Tables that fit any width: columns are taken by rank while they fit, one of them takes the room that is left.
import { toned, type Tone } from './output.js';
import { fitted, type Glyphs } from './cells.js';

/** What a view is drawn with. */
export interface Style {
  readonly colours: boolean;
  readonly glyphs: Glyphs;
}

/** One column of a table of `T`. */
export interface Column<T> {
  readonly title: string;
  /** Least width; the one that is `wide` may get more. */
  readonly width: number;
  readonly right?: true;
  /** Takes the room that is left, up to so much. */
  readonly wide?: number;
  text(row: T, width: number): string;
  tone?(row: T): Tone | undefined;
}

/** Those of `columns` that fit, in their order; `ranked` names their titles, the dearest first. */
export function chosenColumns<T>(
  columns: readonly Column<T>[],
  ranked: readonly string[],
  room: number,
): Column<T>[] {
  const chosen = new Set<string>();
  let used = -1;
  for (const title of ranked) {
    const column = columns.find((other) => other.title === title);
    if (column === undefined || used + 1 + column.width > room) continue;
    used += 1 + column.width;
    chosen.add(title);
  }
  const left = room - used;
  return columns
    .filter(({ title }) => chosen.has(title))
    .map((column) =>
      column.wide === undefined
        ? column
        : { ...column, width: Math.min(column.wide, column.width + Math.max(0, left)) },
    );
}

/** The titles, in one line. */
export function headLine<T>(columns: readonly Column<T>[], style: Style): string {
  const cells = columns.map(({ title, width, right }) => fitted(title, width, cellOptions(style, right)));
  return toned(style, 'faint', cells.join(' '));
}

/** One row, in one line. */
export function rowLine<T>(columns: readonly Column<T>[], row: T, style: Style): string {
  return columns
    .map((column) => {
      const { width, right } = column;
      const cell = fitted(column.text(row, width), width, cellOptions(style, right));
      const tone = column.tone?.(row);
      return tone === undefined ? cell : toned(style, tone, cell);
    })
    .join(' ');
}

function cellOptions({ glyphs }: Style, right: true | undefined): { glyphs: Glyphs; right: boolean } {
  return { glyphs, right: right === true };
}
