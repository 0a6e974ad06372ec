// top: a live look at the daemon in a terminal. It asks once an interval, draws what has changed, and leaves the terminal as it
// was, however it ends.
import { Fault } from '../../protocol/fault.js';
import { StatusShape } from '../control/shapes.js';
import { ExitStatus } from './exit-status.js';
import type { Outcome, Session } from './session.js';
import { TopHistory } from './top-history.js';
import { lastOffset, SORTS, topLines, type TopView } from './top-view.js';

const ENTER = '\u001b[?1049h\u001b[?25l';
const LEAVE = '\u001b[?25h\u001b[?1049l';
const CLEAR_LINE = '\u001b[K';
const CTRL_C = '\u0003';
const CTRL_Z = '\u001a';
/** Where a terminal does not say how large it is, and for a single look that is printed. */
const DEFAULT_SIZE = { columns: 100, rows: 40 } as const;

/** Shows the daemon until `q`; `once`, or without a terminal, one look is printed. */
export async function top(
  session: Session,
  options: { readonly intervalMs: number; readonly once: boolean },
): Promise<Outcome> {
  if (session.json || options.once || !process.stdout.isTTY || !process.stdin.isTTY)
    return printOnce(session, options.intervalMs);
  const screen = new TopScreen(session, options.intervalMs);
  return screen.run();
}

/** One look over one interval, since rates need two. */
async function printOnce(session: Session, intervalMs: number): Promise<Outcome> {
  const { client, output } = session;
  const history = new TopHistory();
  for (let looks = 2; looks > 0; looks--) {
    const answer = await client.json(StatusShape, ['GET', '/v1/status']);
    if (answer instanceof Fault) return answer;
    history.take(answer.value, performance.now());
    if (looks > 1) await new Promise((resolve) => setTimeout(resolve, intervalMs));
  }
  if (session.json) {
    const { status, devices, sources } = history;
    const rates = devices.map(({ device, rates: now }) => ({ name: device.name, ...now }));
    const fed = sources.map(({ source, bytesPerSecond }) => ({ spec: source.spec, bytesPerSecond }));
    output.out(`${JSON.stringify({ status, devices: rates, sources: fed })}\n`);
    return ExitStatus.Ok;
  }
  const rows = history.devices.length + history.sources.length + 10;
  const view = { ...DEFAULT_SIZE, rows, sort: 'name', offset: 0, problem: undefined } as const;
  const lines = topLines(output, history, view).slice(0, -1);
  output.out(
    `${lines
      .map((line) => line.trimEnd())
      .join('\n')
      .trimEnd()}\n`,
  );
  return ExitStatus.Ok;
}

/** The terminal while top has it. */
class TopScreen {
  private readonly session: Session;
  private readonly intervalMs: number;
  private readonly history = new TopHistory();
  private sort: TopView['sort'] = 'name';
  private offset = 0;
  private problem: string | undefined;
  private drawn: string[] = [];
  private timer: NodeJS.Timeout | undefined;
  private asking = false;
  private readonly ended: Promise<void>;
  private end: () => void = () => undefined;

  constructor(session: Session, intervalMs: number) {
    this.session = session;
    this.intervalMs = intervalMs;
    this.ended = new Promise((resolve) => (this.end = resolve));
  }

  async run(): Promise<Outcome> {
    const onKey = (key: string): void => this.key(key);
    const onResize = (): void => this.redraw();
    const onContinue = (): void => this.enter();
    // However this process ends, the terminal is given back.
    const onExit = (): void => this.leave();
    process.stdin.setEncoding('utf8').on('data', onKey);
    process.stdout.on('resize', onResize);
    process.on('SIGCONT', onContinue);
    process.on('exit', onExit);
    this.session.until.addEventListener('abort', () => this.end());
    this.enter();
    this.timer = setInterval(() => void this.look(), this.intervalMs);
    void this.look();
    try {
      await this.ended;
    } finally {
      clearInterval(this.timer);
      process.stdin.off('data', onKey).pause();
      process.stdout.off('resize', onResize);
      process.off('SIGCONT', onContinue);
      process.off('exit', onExit);
      this.leave();
    }
    return ExitStatus.Ok;
  }

  private enter(): void {
    process.stdin.setRawMode(true);
    process.stdout.write(ENTER);
    this.redraw();
  }

  private leave(): void {
    process.stdin.setRawMode(false);
    process.stdout.write(LEAVE);
  }

  private async look(): Promise<void> {
    if (this.asking) return;
    this.asking = true;
    const answer = await this.session.client.json(StatusShape, ['GET', '/v1/status']);
    this.asking = false;
    if (answer instanceof Fault) {
      this.problem = answer.message;
    } else {
      this.problem = undefined;
      this.history.take(answer.value, performance.now());
    }
    this.draw();
  }

  private key(key: string): void {
    const page = Math.max(1, (process.stdout.rows || DEFAULT_SIZE.rows) - 10);
    const steps: Readonly<Record<string, number>> = {
      '\u001b[A': -1,
      k: -1,
      '\u001b[B': 1,
      j: 1,
      '\u001b[5~': -page,
      '\u001b[6~': page,
    };
    const step = steps[key];
    if (key === 'q' || key === CTRL_C) this.end();
    else if (key === CTRL_Z) this.suspend();
    else if (key === 's') this.sort = SORTS[(SORTS.indexOf(this.sort) + 1) % SORTS.length] ?? 'name';
    else if (step !== undefined)
      this.offset = Math.min(lastOffset(this.history), Math.max(0, this.offset + step));
    else return;
    this.draw();
  }

  /** Ctrl-Z: the shell has the terminal until SIGCONT. */
  private suspend(): void {
    this.leave();
    process.kill(process.pid, 'SIGSTOP');
  }

  private redraw(): void {
    this.drawn = [];
    this.draw();
  }

  /** One write a frame, of the lines that have changed. */
  private draw(): void {
    const { columns, rows } = process.stdout;
    const view = {
      columns: columns || DEFAULT_SIZE.columns,
      rows: rows || DEFAULT_SIZE.rows,
      sort: this.sort,
      offset: this.offset,
      problem: this.problem,
    };
    const lines = topLines(this.session.output, this.history, view);
    const changed = lines.flatMap((line, i) =>
      line === this.drawn[i] ? [] : [`\u001b[${i + 1};1H${line}${CLEAR_LINE}`],
    );
    this.drawn = lines;
    if (changed.length > 0) process.stdout.write(changed.join(''));
  }
}
