// The client's program as a script runs it: without a terminal, to its end.
import { spawn } from 'node:child_process';
import { CTL } from './terminal.js';

/** How a run of vhost-rngctl has ended, and what it wrote. */
export interface CtlRun {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly seconds: number;
}

export interface CtlOptions {
  readonly env?: NodeJS.ProcessEnv;
  /** Sends a signal so long after the start. */
  readonly signalAfterMs?: readonly [NodeJS.Signals, number];
  readonly uid?: number;
  readonly gid?: number;
}

const TIMEOUT_MS = 40_000;

/** Runs it; one that does not end by itself is ended, which `signal` tells. */
export async function runCtl(args: readonly string[], options: CtlOptions = {}): Promise<CtlRun> {
  const { uid, gid } = options;
  const begunMs = performance.now();
  // Without the hooks of the test runner.
  const env = { ...process.env, LC_ALL: 'C.UTF-8', NODE_OPTIONS: '', ...options.env };
  const child = spawn(process.execPath, [CTL, ...args], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
    killSignal: 'SIGKILL',
    ...(uid !== undefined && { uid }),
    ...(gid !== undefined && { gid }),
  });
  const [name, afterMs] = options.signalAfterMs ?? [undefined, 0];
  const timer = name === undefined ? undefined : setTimeout(() => child.kill(name), afterMs);
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  return new Promise((resolve) => {
    child.once('close', (status, signal) => {
      clearTimeout(timer);
      resolve({ status, signal, stdout, stderr, seconds: (performance.now() - begunMs) / 1000 });
    });
  });
}
