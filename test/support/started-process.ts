// The daemon's program as a shell would start it, for tests of its command line, its streams and its signals.
import { type ChildProcess, spawn, spawnSync, type StdioOptions } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { asFd, closeFd } from '../../shared-memory/fd.js';
import { connectTo, openSocket } from '../../shared-memory/unix-socket.js';
import { eventually } from './rng-daemon.js';

export const MAIN = fileURLToPath(new URL('../../daemon/main.cjs', import.meta.url));

/** A run that ends by itself: what it wrote and how it ended. */
export interface Run {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs to the end, which must come within 20 s. */
export function runToEnd(args: readonly string[], env: NodeJS.ProcessEnv = {}): Run {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    encoding: 'utf8',
    timeout: 20_000,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return { status, stdout, stderr };
}

/** A daemon with streams of the test's choice; killed with the test. */
export function startProcess(
  t: Pick<Test, 'teardown'>,
  args: readonly string[],
  options: { readonly stdio: StdioOptions; readonly env?: NodeJS.ProcessEnv },
): {
  readonly child: ChildProcess;
  readonly exited: Promise<{ code: number | null; signal: string | null }>;
} {
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', process.execPath, MAIN, ...args], {
    stdio: options.stdio,
    env: { ...process.env, ...options.env },
  });
  const exited = new Promise<{ code: number | null; signal: string | null }>((resolve) =>
    child.once('exit', (code, signal) => resolve({ code, signal })),
  );
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await exited;
  });
  return { child, exited };
}

/** True when someone listens at a socket path. */
export function isLive(path: string): boolean {
  const client = asFd(openSocket({ nonBlocking: true }));
  const connected = connectTo(client, path) === 0;
  closeFd(client);
  return connected;
}

/** Waits until someone listens at a socket path. */
export async function waitUntilLive(path: string): Promise<void> {
  if (!(await eventually(() => isLive(path), 20_000))) throw new Error(`no one listens at ${path}`);
}
