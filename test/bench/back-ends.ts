// The back-ends that the benchmark measures, each a process of its own: the daemon, and the yardstick in C.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../daemon/main.cjs', import.meta.url));
/** The source lies beside this file's source, not beside its compiled form. */
const C_SOURCE = fileURLToPath(new URL('../../../test/bench/least-code-backend.c', import.meta.url));

/** A running back-end with its sockets, in a folder of its own. */
export interface BackEnd {
  readonly pid: number;
  readonly sockets: readonly string[];
  /** Lines that it has written to standard output, as far as they have been read. */
  outputLines(): number;
  /** CPU time so far, in ns: of all its threads, and of the one that serves the rings. */
  cpuNs(): CpuTime;
  stop(): Promise<void>;
}

export interface CpuTime {
  readonly all: number;
  readonly serving: number;
}

/** How a back-end is started. */
export interface BackEndOptions {
  readonly devices: number;
  readonly busyPollUs: number;
  /** The CPU that it is bound to; undefined: any. */
  readonly cpu: number | undefined;
  /** Options of node itself; for the daemon only. */
  readonly nodeOptions?: readonly string[];
}

export type BackEndKind = 'vhost-rngd' | 'least-code C';

const NEWLINE = 10;

let compiled: string | undefined;

/** Compiles the yardstick; undefined where there is no C compiler. */
export function compileYardstick(folder: string): boolean {
  const program = join(folder, 'least-code-backend');
  const done = spawnSync('cc', ['-O2', '-o', program, C_SOURCE], { stdio: ['ignore', 'ignore', 'inherit'] });
  if (done.status === 0) compiled = program;
  return done.status === 0;
}

/** Starts a back-end and waits until its sockets are there. */
export async function startBackEnd(kind: BackEndKind, options: BackEndOptions): Promise<BackEnd> {
  const folder = mkdtempSync(join(tmpdir(), 'vhost-rngd-bench-'));
  const sockets = Array.from({ length: options.devices }, (_, i) => join(folder, `${i}.sock`));
  const command =
    kind === 'vhost-rngd'
      ? [
          process.execPath,
          ...(options.nodeOptions ?? []),
          MAIN,
          '--log-level=error',
          `--busy-poll-us=${options.busyPollUs}`,
          ...sockets.map((path) => `--socket-path=${path}`),
        ]
      : [compiled ?? '', ...sockets];
  const bound = options.cpu === undefined ? command : ['taskset', '-c', String(options.cpu), ...command];
  const [program = '', ...args] = bound;
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let lines = 0;
  child.stdout.on('data', (text: Buffer) => (lines += text.filter((byte) => byte === NEWLINE).length));
  const pid = child.pid;
  if (pid === undefined) throw new Error(`${kind} does not start`);
  await allListening(sockets, child);
  return {
    pid,
    sockets,
    outputLines: () => lines,
    cpuNs: () => cpuNs(pid),
    stop: async () => {
      const exited = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGTERM');
      await exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Waits until every socket listens; a socket file is there a moment earlier. */
async function allListening(sockets: readonly string[], child: ChildProcess): Promise<void> {
  for (let waited = 0; !areListening(sockets); waited += 20) {
    if (child.exitCode !== null || waited > 10_000) throw new Error('the back-end does not listen');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Looks for the sockets among those that accept connections (flag 0x10000). Source: proc(5), /proc/net/unix. */
function areListening(sockets: readonly string[]): boolean {
  const listening = new Set(
    readFileSync('/proc/net/unix', 'utf8')
      .split('\n')
      .map((line) => line.split(/\s+/))
      .filter(([, , , flags]) => flags === '00010000')
      .map((fields) => fields[7]),
  );
  return sockets.every((path) => listening.has(path));
}

/** Time on CPU of the threads; a program of one thread serves in that. Source: Linux's sched-stats.rst, schedstat. */
function cpuNs(pid: number): CpuTime {
  const threads = readdirSync(`/proc/${pid}/task`).map((task) => {
    const of = (file: string): string => readFileSync(`/proc/${pid}/task/${task}/${file}`, 'utf8');
    return { name: of('comm').trim(), ns: Number(of('schedstat').split(' ')[0]) };
  });
  const sum = (some: typeof threads): number => some.reduce((total, { ns }) => total + ns, 0);
  const serving = threads.filter(({ name }) => threads.length === 1 || name === 'data-plane');
  return { all: sum(threads), serving: sum(serving) };
}

/** Resident memory in KiB. Source: proc(5), VmRSS. */
export function residentKib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? NaN);
}
