// Makes one thread of a process hang in its system call, as a driver that never returns does: strace holds it there.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import type { Test } from 'tap';
import { OutputLog } from './guest/output-log.js';
import { eventually } from './rng-daemon.js';

/** epoll_wait(2), which only the data plane calls: node's own loops use epoll_pwait(2). */
const EPOLL_WAIT = '232 ';

/** The thread that serves the rings; undefined where it cannot be told (another architecture). */
export async function dataPlaneThread(pid: number): Promise<number | undefined> {
  let found: number | undefined;
  await eventually(() => {
    found = readdirSync(`/proc/${pid}/task`)
      .map(Number)
      .find((tid) => readFileSync(`/proc/${pid}/task/${tid}/syscall`, 'utf8').startsWith(EPOLL_WAIT));
    return found !== undefined;
  }, 2000);
  return found;
}

/** The thread that carries a name, of which the kernel keeps 15 bytes. */
export function threadNamed(pid: number, name: string): number | undefined {
  return readdirSync(`/proc/${pid}/task`)
    .map(Number)
    .find((tid) => readFileSync(`/proc/${pid}/task/${tid}/comm`, 'utf8').trim() === name.slice(0, 15));
}

/** Attaches strace to one thread, with `args`; its output comes in the log. Undefined where there is no strace. */
export async function attachStrace(
  t: Pick<Test, 'teardown'>,
  tid: number,
  args: readonly string[],
): Promise<{ log: OutputLog; detach: (signal: NodeJS.Signals) => Promise<void> } | undefined> {
  const child = spawn('strace', ['-p', String(tid), ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  const log = new OutputLog('strace');
  const exited = new Promise<void>((resolve) => {
    child.once('error', (error) => {
      log.end(error.message);
      resolve();
    });
    child.once('close', () => {
      log.end('strace has ended');
      resolve();
    });
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => log.append(text));
  const detach = async (signal: NodeJS.Signals) => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    await exited;
  };
  t.teardown(() => detach('SIGKILL'));
  try {
    await log.waitFor(/attached/, 10_000);
  } catch {
    return undefined;
  }
  return { log, detach };
}
