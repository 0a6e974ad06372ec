// The terminal while a live view has it: the alternate screen, no cursor, keys as they are pressed; and given back as it was,
// however this process ends or is stopped.
import type { ReadStream, WriteStream } from 'node:tty';
import { widthOf } from './cells.js';

/** The alternate screen, no cursor, and no going on in the next line. Source: XTerm control sequences. */
const ENTER = '\u001b[?1049h\u001b[?25l\u001b[?7l';
const LEAVE = '\u001b[0m\u001b[?7h\u001b[?25h\u001b[?1049l';
const CLEAR = '\u001b[2J';
const CLEAR_TO_END = '\u001b[K';
/** Where a terminal does not say how large it is. */
const USUAL_SIZE = { columns: 80, rows: 24 } as const;

const CTRL_C = '\u0003';
const CTRL_Z = '\u001a';
/** What ends the view. SIGHUP: the terminal has gone. */
const ENDING_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;
/** A key, with what follows an escape. */
// eslint-disable-next-line no-control-regex
const KEY = /\u001b(?:\[[0-?]*[ -/]*[@-~]|O.)?|[^\u001b]/gsu;

/** Whom the screen tells. */
export interface ScreenUser {
  /** Draw everything anew: the size is another, or the screen was not ours for a while. */
  redraw(): void;
  /** A key, as the terminal sends it. */
  key(key: string): void;
  /** The user, or a signal, wants an end; the terminal is given back already where it was a signal. */
  end(): void;
}

/** One terminal. */
export class TopScreen {
  private readonly input: ReadStream;
  private readonly output: WriteStream;
  private readonly user: ScreenUser;
  /** What stands on the screen, as far as it is known. */
  private drawn: readonly string[] = [];
  private isClean = false;
  private isOurs = false;

  private readonly onKeys = (text: string): void => this.keys(text);
  private readonly onResize = (): void => this.redraw();
  private readonly onSuspend = (): void => this.suspend();
  private readonly onContinue = (): void => {
    // After SIGSTOP, of which nobody is told, the screen is taken for ours, and is not.
    if (this.isOurs) this.input.setRawMode(false);
    this.isOurs = false;
    this.take();
  };
  private readonly onLeave = (): void => this.give();
  private readonly onGone = (): void => {
    this.isOurs = false;
    this.user.end();
  };
  private readonly onEnd = (): void => {
    // First the terminal: a second signal may end the process on the spot.
    this.give();
    this.user.end();
  };

  constructor(input: ReadStream, output: WriteStream, user: ScreenUser) {
    this.input = input;
    this.output = output;
    this.user = user;
  }

  get size(): { readonly columns: number; readonly rows: number } {
    const { columns, rows } = this.output;
    return { columns: columns || USUAL_SIZE.columns, rows: rows || USUAL_SIZE.rows };
  }

  open(): void {
    // A terminal that has gone takes no modes: that is the end.
    this.input.on('error', this.onGone).on('end', this.onGone);
    this.input.setEncoding('utf8').on('data', this.onKeys);
    this.output.on('resize', this.onResize);
    for (const signal of ENDING_SIGNALS) process.on(signal, this.onEnd);
    process.on('SIGTSTP', this.onSuspend);
    process.on('SIGCONT', this.onContinue);
    process.on('exit', this.onLeave);
    // Before node prints what went wrong, so that it can be read.
    process.on('uncaughtExceptionMonitor', this.onLeave);
    this.take();
  }

  close(): void {
    this.input.off('data', this.onKeys).off('end', this.onGone).pause();
    this.output.off('resize', this.onResize);
    for (const signal of ENDING_SIGNALS) process.off(signal, this.onEnd);
    process.off('SIGTSTP', this.onSuspend);
    process.off('SIGCONT', this.onContinue);
    process.off('exit', this.onLeave);
    process.off('uncaughtExceptionMonitor', this.onLeave);
    this.give();
  }

  /** One write for a frame, of the lines that are others than before: nothing flickers, and a slow line carries little. */
  draw(lines: readonly string[]): void {
    if (!this.isOurs) return;
    const { columns } = this.size;
    const before = this.isClean ? this.drawn : [];
    const height = Math.max(lines.length, before.length);
    let text = this.isClean ? '' : CLEAR;
    for (let row = 0; row < height; row++) {
      const line = lines[row] ?? '';
      if (line === (before[row] ?? '')) continue;
      // In a full line the cursor rests on its last character, which clearing would take away.
      text += `\u001b[${row + 1};1H${line}${widthOf(line) < columns ? CLEAR_TO_END : ''}`;
    }
    this.drawn = lines;
    this.isClean = true;
    if (text !== '') this.output.write(text);
  }

  private redraw(): void {
    this.isClean = false;
    this.user.redraw();
  }

  private keys(text: string): void {
    for (const [key] of text.matchAll(KEY)) {
      if (key === CTRL_C) this.user.end();
      // To the whole group, as the terminal does it: whoever started us, a wrapper or sudo, stops too.
      else if (key === CTRL_Z) process.kill(0, 'SIGTSTP');
      else this.user.key(key);
    }
  }

  /** The shell has the terminal until SIGCONT. */
  private suspend(): void {
    this.give();
    process.kill(process.pid, 'SIGSTOP');
  }

  private take(): void {
    if (this.isOurs) return;
    this.isOurs = true;
    this.input.setRawMode(true);
    this.output.write(ENTER);
    this.redraw();
  }

  private give(): void {
    if (!this.isOurs) return;
    this.isOurs = false;
    this.input.setRawMode(false);
    this.output.write(LEAVE);
  }
}
