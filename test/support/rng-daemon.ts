// A real daemon with its sockets in a folder of its own, ended and removed with the test that started it.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { type Daemon, startDaemon } from './guest/daemon.js';
import { openFiles } from './guest/proc-files.js';

/** What a test needs of a daemon that it started. */
export interface RngDaemon {
  readonly daemon: Daemon;
  /** One socket path for each device. */
  readonly paths: readonly string[];
  /** The first device's socket path. */
  readonly path: string;
  readonly folder: string;
}

/** A folder that goes with the test. */
export function temporaryFolder(t: Pick<Test, 'teardown'>): string {
  const folder = mkdtempSync(join(tmpdir(), 'rngd-test-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Starts a daemon of `devices` devices (1 unless told otherwise), with `args` besides. */
export async function startRngDaemon(
  t: Pick<Test, 'teardown'>,
  options: { readonly devices?: number; readonly args?: readonly string[] } = {},
): Promise<RngDaemon> {
  const folder = temporaryFolder(t);
  const paths = Array.from({ length: options.devices ?? 1 }, (_, i) => join(folder, `rng${i}.sock`));
  const daemon = await startDaemon([
    ...paths.map((path) => `--socket-path=${path}`),
    ...(options.args ?? []),
  ]);
  t.teardown(() => daemon.kill());
  return { daemon, paths, path: paths[0] ?? '', folder };
}

/** How many descriptors a process has open. */
export function openFdCount(pid: number): number {
  return openFiles(pid).length;
}

/** How often the main thread of a process has waited for something. */
export function contextSwitches(pid: number): number {
  const status = readFileSync(`/proc/${pid}/task/${pid}/status`, 'utf8');
  return Number(/^voluntary_ctxt_switches:\s*(\d+)$/m.exec(status)?.[1]);
}

/** The number that the next descriptor of a process gets: as a limit, it leaves none free. */
export function lowestFreeFd(pid: number): number {
  const used = new Set(readdirSync(`/proc/${pid}/fd`).map(Number));
  let fd = 0;
  while (used.has(fd)) fd++;
  return fd;
}

/** How many mappings of shared memory files a process has. */
export function memfdMappings(pid: number): number {
  const lines = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
  return lines.filter((line) => line.includes('/memfd:rngd')).length;
}

/** Resident memory of a process, in KiB. */
export function residentKib(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(line?.[1] ?? NaN);
}

/** Calls `look` every 5 ms until it gives true, without giving the event loop up for longer; false after `timeoutMs`. */
export async function eventually(look: () => boolean, timeoutMs = 5000): Promise<boolean> {
  const endMs = performance.now() + timeoutMs;
  while (!look()) {
    if (performance.now() > endMs) return false;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return true;
}
