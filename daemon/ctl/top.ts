// top: a live look at a daemon. In a terminal until `q`; elsewhere a look as text, or as a line of JSON, each interval.
//
// A daemon that goes away is said to be away, and is seen again when it is back.
import { setTimeout } from 'node:timers/promises';
import { Fault } from '../../protocol/fault.js';
import { type Status, StatusShape } from '../control/shapes.js';
import { ASCII, UNICODE } from './cells.js';
import { ExitStatus } from './exit-status.js';
import type { Output } from './output.js';
import type { Outcome, Session } from './session.js';
import type { Style } from './top-columns.js';
import { SORT_KEYS, type SortKey } from './top-devices.js';
import { TopHistory } from './top-history.js';
import { TopScreen } from './top-screen.js';
import { drawTop, type Frame } from './top-view.js';

/** How it looks at the daemon. */
export interface TopOptions {
  readonly intervalMs: number;
  /** One look, and the end. */
  readonly once: boolean;
}

/** A question that is open for longer is told. The daemon answers within 50 ms. Ours. */
const SILENT_AFTER_MS = 2000;
/** For text that goes to no terminal. */
const PRINTED_COLUMNS = 120;

type Ask = () => Promise<Status | Fault>;

/** Shows the daemon until the user has seen enough. */
export async function top(session: Session, options: TopOptions): Promise<Outcome> {
  const ask: Ask = async () => {
    const answer = await session.client.json(StatusShape, ['GET', '/v1/status']);
    return answer instanceof Fault ? answer : answer.value;
  };
  // A daemon that was never there is most often a wrong path: said at once, as by every other command.
  const first = await ask();
  if (first instanceof Fault) return first;
  const { stdin, stdout } = process;
  const isTerminal = stdin.isTTY && stdout.isTTY && process.env['TERM'] !== 'dumb';
  if (session.json || options.once || !isTerminal) return print(session, { ask, first }, options);
  const style = { colours: session.output.colours, glyphs: glyphsOf(process.env) };
  try {
    return await new LiveTop(ask, style, options.intervalMs).run(first, session.until);
  } finally {
    session.client.close();
  }
}

/** What the terminal's locale can show. Source: locale(7), the order of its variables. */
function glyphsOf(env: NodeJS.ProcessEnv): Style['glyphs'] {
  // An empty one counts as none.
  const locale = [env['LC_ALL'], env['LC_CTYPE'], env['LANG']].find((name = '') => name !== '') ?? '';
  return /utf-?8/i.test(locale) ? UNICODE : ASCII;
}

/** A look over each interval; rates need two, so nothing is printed of the first. */
async function print(
  { output, json, until }: Session,
  { ask, first }: { readonly ask: Ask; readonly first: Status },
  { intervalMs, once }: TopOptions,
): Promise<Outcome> {
  const history = new TopHistory();
  history.look(first, performance.now());
  for (;;) {
    await setTimeout(intervalMs, undefined, { signal: until }).catch(() => undefined);
    if (until.aborted) return ExitStatus.Ok;
    const status = await ask();
    if (status instanceof Fault) {
      if (once) return status;
      history.miss();
      output.err(`${status.message}\n`);
      continue;
    }
    history.look(status, performance.now());
    output.out(json ? `${JSON.stringify(lookRecord(status, history))}\n` : lookText(output, status, history));
    if (once) return ExitStatus.Ok;
  }
}

/** A look as JSON: the daemon's status, and what was made of it and the one before. */
function lookRecord(status: Status, history: TopHistory): object {
  return {
    status,
    devices: status.devices.map(({ name, limit }) => {
      const track = history.device(name);
      return { name, rates: track.latest, limitUse: limit === null ? null : track.limitUse(limit) };
    }),
    sources: status.sources.map(({ spec }) => ({
      spec,
      bytesPerSecond: history.source(spec).latest?.bytesPerSecond ?? null,
    })),
  };
}

function lookText(output: Output, status: Status, history: TopHistory): string {
  const state = { status, history, silence: null, sort: 'name', first: 0, intervalSeconds: 0 } as const;
  const size = { columns: output.columns ?? PRINTED_COLUMNS, rows: Infinity };
  const { lines } = drawTop(state, size, { colours: output.colours, glyphs: glyphsOf(process.env) });
  return `${lines.map((line) => line.trimEnd()).join('\n')}\n\n`;
}

/** The view in a terminal: looks each interval, and draws at each look, key and new size. */
class LiveTop {
  private readonly ask: Ask;
  private readonly style: Style;
  private readonly intervalMs: number;
  private readonly history = new TopHistory();
  private readonly screen: TopScreen;
  private status: Status | undefined;
  private sort: SortKey = 'name';
  private first = 0;
  private frame: Frame = { lines: [], first: 0, count: 0 };
  /** When the daemon last answered, and when it was last asked without an answer yet. */
  private answeredMs = 0;
  private askedMs: number | undefined;
  private trouble: string | undefined;
  private finish: (failure?: Error) => void = () => undefined;

  constructor(ask: Ask, style: Style, intervalMs: number) {
    this.ask = ask;
    this.style = style;
    this.intervalMs = intervalMs;
    this.screen = new TopScreen(process.stdin, process.stdout, {
      redraw: () => this.draw(),
      key: (key) => this.key(key),
      end: () => this.finish(),
    });
  }

  async run(first: Status, until: AbortSignal): Promise<Outcome> {
    this.take(first);
    const ended = new Promise<void>((resolve, reject) => {
      this.finish = (failure) => (failure === undefined ? resolve() : reject(failure));
    });
    until.addEventListener('abort', () => this.finish());
    this.screen.open();
    const timer = setInterval(() => this.look(), this.intervalMs);
    try {
      await ended;
    } finally {
      clearInterval(timer);
      this.screen.close();
    }
    return ExitStatus.Ok;
  }

  private look(): void {
    if (this.askedMs !== undefined) {
      // One question at a time: who does not answer one would not answer more.
      if (performance.now() - this.askedMs >= SILENT_AFTER_MS) this.miss('it was asked, and does not answer');
      return;
    }
    this.askedMs = performance.now();
    this.ask().then(
      (answer) => {
        this.askedMs = undefined;
        if (answer instanceof Fault) this.miss(answer.message);
        else this.take(answer);
      },
      (failure: unknown) => this.finish(failure instanceof Error ? failure : new Error(String(failure))),
    );
  }

  private take(status: Status): void {
    this.status = status;
    this.answeredMs = performance.now();
    this.trouble = undefined;
    this.history.look(status, this.answeredMs);
    this.draw();
  }

  private miss(trouble: string): void {
    this.trouble = trouble;
    this.history.miss();
    this.draw();
  }

  private key(key: string): void {
    const last = Math.max(0, (this.status?.devices.length ?? 0) - this.frame.count);
    const steps: Readonly<Record<string, number>> = {
      '\u001b[A': -1,
      '\u001bOA': -1,
      k: -1,
      '\u001b[B': 1,
      '\u001bOB': 1,
      j: 1,
      '\u001b[5~': -this.frame.count,
      '\u001b[6~': this.frame.count,
      ' ': this.frame.count,
      '\u001b[H': -last,
      '\u001b[1~': -last,
      '\u001b[F': last,
      '\u001b[4~': last,
    };
    const step = steps[key];
    if (key === 'q' || key === 'Q') this.finish();
    else if (key === 's')
      this.sort = SORT_KEYS[(SORT_KEYS.indexOf(this.sort) + 1) % SORT_KEYS.length] ?? 'name';
    else if (step !== undefined) this.first = Math.min(last, Math.max(0, this.frame.first + step));
    else return;
    this.draw();
  }

  private draw(): void {
    const { status, history, trouble, sort, first } = this;
    if (status === undefined) return;
    const seconds = (performance.now() - this.answeredMs) / 1000;
    const silence = trouble === undefined ? null : { reason: trouble, seconds };
    const state = { status, history, silence, sort, first, intervalSeconds: this.intervalMs / 1000 };
    this.frame = drawTop(state, this.screen.size, this.style);
    this.screen.draw(this.frame.lines);
  }
}
