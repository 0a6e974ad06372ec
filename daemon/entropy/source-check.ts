// A look at each source before the daemon starts, so that a missing device, permission or instruction is an error with a fix.
//
// It may hang in a driver's open(2), so a thread of its own looks (source-check-thread.ts), and is not waited for for ever.
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { Fault } from '../../protocol/fault.js';
import { SOURCE_CHECK_THREAD } from '../threads.js';
import { openCpuSource } from './cpu-source.js';
import { openJitterSource } from './jitter-source.js';
import type { OpenSource } from './source.js';
import type { SourceSpec } from './source-spec.js';

/** A driver that takes longer is left to the source's own reader. Ours. */
const CHECK_TIMEOUT_MS = 1000;
/** The kernel's own devices, whose open(2) never waits: no thread for them. */
const KERNEL_PATHS: readonly string[] = ['/dev/random', '/dev/urandom'];
let hanging = 0;

/** True while a look hangs in a driver: process.exit() would wait for it. */
export function isCheckHanging(): boolean {
  return hanging > 0;
}

/** What the thread answers. */
export interface CheckAnswer {
  readonly fault: { readonly code: string; readonly message: string } | undefined;
}

/** As {@link firstFault}, but after 1 s without an answer there is none: the source is then found to be slow. */
export async function checkSources(sources: readonly SourceSpec[]): Promise<Fault | undefined> {
  const found = await lookAtSources(sources);
  return found === 'late' ? undefined : found;
}

/** As {@link firstFault}; `late` when there is no answer after 1 s: a driver hangs in open(2). */
export async function lookAtSources(sources: readonly SourceSpec[]): Promise<Fault | 'late' | undefined> {
  if (sources.every((spec) => !('path' in spec) || KERNEL_PATHS.includes(spec.path)))
    return firstFault(sources);
  const thread = new Worker(SOURCE_CHECK_THREAD, { workerData: sources });
  hanging++;
  thread.once('exit', () => hanging--);
  const answer = await new Promise<CheckAnswer | 'late'>((resolve) => {
    const late = setTimeout(() => resolve('late'), CHECK_TIMEOUT_MS);
    thread.once('message', (message: CheckAnswer) => {
      clearTimeout(late);
      resolve(message);
    });
  });
  thread.unref();
  if (answer === 'late') return answer;
  return answer.fault && new Fault('daemon', answer.fault.code, answer.fault.message);
}

/** The first fault of scope `daemon`; an EGD server may come later and is no reason not to start. */
export function firstFault(sources: readonly SourceSpec[]): Fault | undefined {
  for (const spec of sources) {
    const fault = checkSource(spec);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

function checkSource(spec: SourceSpec): Fault | undefined {
  switch (spec.kind) {
    case 'rdrand':
    case 'rdseed':
      return closed(openCpuSource(spec.kind));
    case 'jitter':
      return closed(openJitterSource());
    case 'random':
    case 'hwrng':
    case 'file':
      return checkFile(spec.path, spec);
    case 'getrandom':
    case 'egd':
      return undefined;
  }
}

function closed(opened: OpenSource | Fault): Fault | undefined {
  if (opened instanceof Fault) return opened;
  opened.close();
  return undefined;
}

function checkFile(path: string, { kind, text }: SourceSpec): Fault | undefined {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const isFile = fstatSync(fd).isFile();
    closeSync(fd);
    return isFile && kind !== 'file'
      ? refuse(
          `expected a device as source, got ${text}, a regular file, which gives the same bytes again each time`,
        )
      : undefined;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'an error';
    const fix =
      code === 'EACCES' || code === 'EPERM'
        ? `give this user read permission, for example with a udev rule: KERNEL=="hw_random", GROUP="vhost-rngd", MODE="0440"`
        : 'check the path, load the driver (modprobe), or use another --source';
    return refuse(`expected to open the source ${text}, got ${code}: ${fix}`);
  }
}

function refuse(message: string): Fault {
  return new Fault('daemon', 'source_open', message);
}
