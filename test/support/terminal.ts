// A real terminal: tmux with one shell in it, on a server of its own that goes with the test. Types keys, reads the screen.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { waitUntil } from './guest/deadline.js';
import { temporaryFolder } from './rng-daemon.js';

/** The client's program. */
export const CTL = fileURLToPath(new URL('../../daemon/ctl.cjs', import.meta.url));

/** Where a shell in the terminal waits for a command. */
const PROMPT = 'shell> ';
const PATIENCE_MS = 15_000;

/** What the terminal itself is in; the same before and after a program is how one sees that it was given back. */
export interface TerminalModes {
  readonly cursor: boolean;
  /** The alternate screen, which programs take that are to leave no traces. */
  readonly alternate: boolean;
  /** Going on in the next line at the end of one. */
  readonly wraps: boolean;
  /** What stty says: echo, lines, signals. */
  readonly settings: string;
}

/** tmux is not on this host, and why that is no pass: undefined when it is, or when it must be. */
export function terminalMissing(): string | undefined {
  const isThere = spawnSync('tmux', ['-V']).status === 0;
  if (isThere || process.env['VHOST_RNGD_REQUIRE_E2E'] === '1') return undefined;
  return 'tmux is missing: sudo apt-get install --no-install-recommends tmux';
}

/** One terminal with a shell. */
export class Terminal {
  private readonly socket: string;

  private constructor(socket: string) {
    this.socket = socket;
  }

  /** Starts it; the shell waits at its prompt, with `variables` in its environment. */
  static async start(
    t: Pick<Test, 'teardown'>,
    size: { readonly columns: number; readonly rows: number },
    variables: Readonly<Record<string, string>> = {},
  ): Promise<Terminal> {
    const terminal = new Terminal(join(temporaryFolder(t), 'tmux'));
    t.teardown(() => terminal.close());
    const all = { LC_ALL: 'C.UTF-8', NODE_OPTIONS: '', ...variables };
    const environment = Object.entries(all).flatMap(([name, value]) => ['-e', `${name}=${value}`]);
    const shape = ['-x', String(size.columns), '-y', String(size.rows)];
    const begun = [
      'new-session',
      '-d',
      ...shape,
      ...environment,
      `exec env PS1='${PROMPT}' bash --norc --noprofile`,
    ];
    terminal.tmux('-f', '/dev/null', ...begun);
    // What has ended stays, so that its last screen can be looked at.
    terminal.tmux('set-option', '-g', 'remain-on-exit', 'on');
    await terminal.waitFor(/shell> $/);
    return terminal;
  }

  private tmux(...args: readonly string[]): string {
    const { status, stdout, stderr } = spawnSync('tmux', ['-u', '-S', this.socket, ...args], {
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`tmux ${args.join(' ')}: ${stderr}`);
    return stdout;
  }

  /** What stands on the screen, a line each, without spaces at their ends; a prompt keeps its own. */
  get screen(): string {
    const screen = this.tmux('capture-pane', '-p').trimEnd();
    return screen.endsWith(PROMPT.trimEnd()) ? `${screen} ` : screen;
  }

  get modes(): TerminalModes {
    const format = '#{cursor_flag} #{alternate_on} #{wrap_flag} #{pane_tty}';
    const [cursor, alternate, wraps, tty = ''] = this.tmux('display-message', '-p', format).trim().split(' ');
    const { stdout } = spawnSync('stty', ['-a', '-F', tty], { encoding: 'utf8' });
    const settings = stdout.split('\n').slice(2).join('\n');
    return { cursor: cursor === '1', alternate: alternate === '1', wraps: wraps === '1', settings };
  }

  /** The process of the shell. */
  get shellPid(): number {
    return Number(this.tmux('display-message', '-p', '#{pane_pid}'));
  }

  /** Keys as tmux names them: `q`, `C-c`, `Down`. */
  press(...keys: readonly string[]): void {
    this.tmux('send-keys', ...keys);
  }

  /** Types a command and Enter. */
  type(line: string): void {
    this.tmux('send-keys', '-l', line);
    this.press('Enter');
  }

  resize(columns: number, rows: number): void {
    this.tmux('resize-window', '-x', String(columns), '-y', String(rows));
  }

  /** Waits until the screen is as wanted; gives it. */
  async waitFor(wanted: RegExp | ((screen: string) => boolean)): Promise<string> {
    let screen = '';
    const look = (): boolean => {
      screen = this.screen;
      return typeof wanted === 'function' ? wanted(screen) : wanted.test(screen);
    };
    await waitUntil(look, PATIENCE_MS, () => `expected ${wanted.toString()}, got the screen\n${screen}`);
    return screen;
  }

  async waitForModes(wanted: (modes: TerminalModes) => boolean): Promise<void> {
    const explain = (): string => `expected ${wanted.toString()}, got ${JSON.stringify(this.modes)}`;
    await waitUntil(() => wanted(this.modes), PATIENCE_MS, explain);
  }

  /** The terminal goes, as when an ssh connection breaks. */
  close(): void {
    spawnSync('tmux', ['-S', this.socket, 'kill-server']);
  }
}

/** Processes that `pid` has started. Source: proc(5), children. */
export function childrenOf(pid: number): readonly number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? [] : text.split(' ').map(Number);
}
