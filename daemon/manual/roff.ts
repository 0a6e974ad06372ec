// Manual pages in roff, of the man(7) macros that every formatter knows.

/** Text as roff prints it: what roff would act on is escaped. */
export function roffText(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('µ', '\\(mc')
    .replaceAll('…', '...')
    .replace(/^\./gm, '\\&.');
}

/** A page that grows from its first line to its last. */
export class ManualPage {
  readonly name: string;
  readonly section: number;
  private readonly lines: string[] = [];

  /** `name(section)`, with its one-line description; `source` is the program and its version. */
  constructor(
    name: string,
    section: number,
    about: {
      readonly summary: string;
      readonly date: string;
      readonly source: string;
      readonly title: string;
    },
  ) {
    this.name = name;
    this.section = section;
    // The date is a word of the format, not a text.
    const words = [name.toUpperCase(), String(section), about.date, about.source, about.title];
    const quoted = words.map((word) => (word === about.date ? `"${word}"` : quote(word)));
    this.lines.push(`.TH ${quoted.join(' ')}`);
    this.heading('NAME');
    this.lines.push(`${roffText(name)} \\- ${roffText(about.summary)}`);
  }

  heading(text: string): void {
    this.lines.push(`.SH ${quote(text)}`);
  }

  subheading(text: string): void {
    this.lines.push(`.SS ${quote(text)}`);
  }

  /** A paragraph. */
  paragraph(text: string): void {
    this.beginParagraph();
    this.lines.push(roffText(text));
  }

  /** A term in bold, and behind it what it means. */
  entry(term: string, meaning: string): void {
    this.lines.push('.TP', `\\fB${roffText(term)}\\fR`, roffText(meaning));
  }

  /** Lines as they stand. */
  example(text: string): void {
    this.beginParagraph();
    this.lines.push('.nf', '.RS', ...text.split('\n').map(roffText), '.RE', '.fi');
  }

  /** Behind a heading a paragraph has begun already. */
  private beginParagraph(): void {
    if (!/^\.S[HS] /.test(this.lines.at(-1) ?? '')) this.lines.push('.PP');
  }

  /** Commands to call it by, in bold. */
  synopsis(calls: readonly string[]): void {
    this.heading('SYNOPSIS');
    calls.forEach((call, i) => this.lines.push(...(i > 0 ? ['.br'] : []), `\\fB${roffText(call)}\\fR`));
  }

  /** Other pages. */
  seeAlso(pages: readonly (readonly [string, number])[]): void {
    this.heading('SEE ALSO');
    this.lines.push(pages.map(([name, section]) => `\\fB${roffText(name)}\\fR(${section})`).join(',\n'));
  }

  get text(): string {
    return `${this.lines.join('\n')}\n`;
  }
}

function quote(text: string): string {
  return `"${roffText(text).replaceAll('"', '\\(dq')}"`;
}
