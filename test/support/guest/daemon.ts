// Starts the real daemon, `node dist/daemon/main.cjs`, for an end-to-end test, and stops it.
import { fileURLToPath } from 'node:url';
import { ChildProcess, type ExitStatus } from './child-process.js';

/** The compiled daemon, seen from this file's compiled place. */
const MAIN = fileURLToPath(new URL('../../../daemon/main.cjs', import.meta.url));

const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 15_000;

const TITLES = { process: 'the daemon', stdout: 'daemon output', stderr: 'daemon log' } as const;

const PATH_OPTION = '--socket-path=';

/** Starts the daemon and waits until every `--socket-path` listens; the caller must `kill` it in the end. */
export async function startDaemon(args: readonly string[]): Promise<Daemon> {
  // What is not dumpable shows its descriptors and mappings to root only, and these are what many tests look at.
  const open = process.getuid?.() === 0 ? [] : ['--debug'];
  // Not with the test runner's own options: they load code into every thread of it, and such threads do not all end.
  const command = ['-u', 'NODE_OPTIONS', process.execPath, MAIN, ...open, ...args];
  const child = new ChildProcess(TITLES, 'env', command);
  const daemon = new Daemon(child);
  const paths = args.filter((arg) => arg.startsWith(PATH_OPTION)).map((arg) => arg.slice(PATH_OPTION.length));
  try {
    for (const path of paths) await child.stderr.waitFor(listeningOn(path), START_TIMEOUT_MS);
  } catch (error) {
    await daemon.kill();
    throw error;
  }
  return daemon;
}

/** A running daemon. */
export class Daemon {
  readonly #child: ChildProcess;

  constructor(child: ChildProcess) {
    this.#child = child;
  }

  get pid(): number {
    return this.#child.pid;
  }

  get isRunning(): boolean {
    return this.#child.isRunning;
  }

  /** All that it has logged. */
  get log(): string {
    return this.#child.stderr.text;
  }

  /** Waits for a pattern in the log, at or after character `from`. */
  waitForLog(pattern: RegExp, timeoutMs: number, from = 0): Promise<RegExpExecArray> {
    return this.#child.stderr.waitFor(pattern, timeoutMs, from);
  }

  /** Stops it as a service manager does, with SIGTERM, and gives how it ended. */
  async stop(): Promise<ExitStatus> {
    this.#child.signal('SIGTERM');
    return await this.#child.waitExit(STOP_TIMEOUT_MS);
  }

  /** Waits for it to end by itself. */
  waitExit(): Promise<ExitStatus> {
    return this.#child.waitExit(STOP_TIMEOUT_MS);
  }

  /** Ends it with SIGKILL, if it still runs. */
  kill(): Promise<void> {
    return this.#child.kill();
  }
}

/** The log line of a device whose socket accepts, in whatever order its words stand. */
function listeningOn(socketPath: string): RegExp {
  const path = socketPath.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`listening.*${path}|${path}.*listening`);
}
