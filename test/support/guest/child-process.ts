// Starts the long-running processes of a test, QEMU and the daemon, so that none outlives it: the kernel kills them when
// the test's own process goes, however it goes.
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import { withDeadline } from './deadline.js';
import { OutputLog } from './output-log.js';

export interface ExitStatus {
  readonly code: number | undefined;
  readonly signal: NodeJS.Signals | undefined;
}

/** How failure messages call a process and what it writes. */
interface Titles {
  readonly process: string;
  readonly stdout: string;
  readonly stderr: string;
}

/** A started process: its output as it comes, its end, and a kill by its own pid. */
export class ChildProcess {
  readonly stdout: OutputLog;
  readonly stderr: OutputLog;
  readonly exited: Promise<ExitStatus>;
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  #hasExited = false;

  constructor(titles: Titles, program: string, args: readonly string[]) {
    this.stdout = new OutputLog(titles.stdout);
    this.stderr = new OutputLog(titles.stderr);
    // setpriv (util-linux, always there) becomes the program: same pid, and the kernel ends it with its parent.
    this.#child = spawn('setpriv', ['--pdeathsig', 'KILL', program, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#child.stdout.setEncoding('latin1').on('data', (text: string) => this.stdout.append(text));
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => this.stderr.append(text));
    this.exited = new Promise((resolve) => {
      const finish = (code: number | null, signal: NodeJS.Signals | null): void => {
        this.#hasExited = true;
        const ending = `${titles.process} ended (${signal ?? `exit code ${code ?? 'unknown'}`})`;
        this.stdout.end(ending);
        this.stderr.end(ending);
        resolve({ code: code ?? undefined, signal: signal ?? undefined });
      };
      this.#child.on('close', finish);
      this.#child.on('error', (error) => {
        this.stderr.append(`${error.message}\n`);
        finish(null, null);
      });
    });
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error(`the process did not start\n${this.stderr.quote()}`);
    return this.#child.pid;
  }

  get isRunning(): boolean {
    return !this.#hasExited;
  }

  /** Waits for the end; rejects with what the process wrote when it goes on for longer than `timeoutMs`. */
  waitExit(timeoutMs: number): Promise<ExitStatus> {
    return withDeadline(
      this.exited,
      timeoutMs,
      () =>
        `expected the process to end within ${timeoutMs} ms\n${this.stdout.quote()}\n${this.stderr.quote()}`,
    );
  }

  signal(signal: NodeJS.Signals): void {
    if (this.isRunning) this.#child.kill(signal);
  }

  /** Ends the process at once, if it still runs. */
  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.waitExit(10_000);
  }
}
