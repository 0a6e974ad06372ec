// Where vhost-rngctl writes: text for people, with colours on a terminal only, or the daemon's own JSON.
import { styleText } from 'node:util';
import Table from 'cli-table3';

/** Colours by what they mean. */
export type Tone = 'good' | 'warn' | 'bad' | 'faint' | 'strong';

const STYLES = { good: 'green', warn: 'yellow', bad: 'red', faint: 'gray', strong: 'bold' } as const;

/** A column of a table. */
export interface Column {
  readonly title: string;
  readonly right?: boolean;
}

/** Both streams of one run. */
export interface Output {
  readonly colours: boolean;
  /** The same for what goes to err(). */
  readonly errorColours: boolean;
  /** Columns of the terminal; undefined: it is none. */
  readonly columns: number | undefined;
  out(text: string): void;
  err(text: string): void;
}

/** The streams of this process; a reader that has gone, as `head` does, ends it quietly. */
export function processOutput(): Output {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  const { FORCE_COLOR: forced } = process.env;
  return {
    colours: wantsColours(process.stdout, forced),
    errorColours: wantsColours(process.stderr, forced),
    columns: process.stdout.isTTY ? process.stdout.columns : undefined,
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
  };
}

/** Colours on a terminal that has some; FORCE_COLOR decides for every stream, as node has it: 0 or false for none. */
function wantsColours(stream: NodeJS.WriteStream, forced: string | undefined): boolean {
  if (forced !== undefined) return forced !== '0' && forced !== 'false';
  return stream.isTTY && stream.hasColors();
}

/** `text` in a tone, where there are colours. */
export function toned({ colours }: Pick<Output, 'colours'>, tone: Tone, text: string): string {
  return colours ? styleText(STYLES[tone], text) : text;
}

// What a terminal would act on: C0, DEL and C1.
// eslint-disable-next-line no-control-regex
const CONTROLS = /[\u0000-\u001f\u007f-\u009f]/g;

/** Text from elsewhere, without anything that a terminal acts on. */
export function printable(text: string): string {
  return text.replace(CONTROLS, '�');
}

/** A table without lines, two spaces between its columns, titles faint; ends in a new line. */
export function tableText(
  output: Pick<Output, 'colours'>,
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): string {
  const nothing = Object.fromEntries(
    ['top', 'top-mid', 'top-left', 'top-right', 'bottom', 'bottom-mid', 'bottom-left', 'bottom-right']
      .concat(['left', 'left-mid', 'mid', 'mid-mid', 'right', 'right-mid'])
      .map((part) => [part, '']),
  );
  const table = new Table({
    head: columns.map(({ title }) => toned(output, 'faint', title)),
    colAligns: columns.map(({ right }) => (right === true ? 'right' : 'left')),
    chars: { ...nothing, middle: '  ' },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  table.push(...rows.map((row) => [...row]));
  return `${table.toString().replace(/ +$/gm, '')}\n`;
}
