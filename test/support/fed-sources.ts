// Daemons whose sources are FIFOs and files, and streams that leave such a source block by block.
import type { Test } from 'tap';
import { BLOCK_BYTES, WINDOW_BYTES } from '../../daemon/entropy/health-tests.js';
import type { Fifo } from './fifo.js';
import { goodBytes } from './good-bytes.js';
import { type RngDaemon, startRngDaemon } from './rng-daemon.js';

/** What must have come before the first block leaves. */
export const STARTUP_BYTES = BLOCK_BYTES + WINDOW_BYTES;
/** Longest wait for a line in the log. A source that is out is tried again after 1 s, 2 s, 4 s. */
export const LOG_MS = 20_000;

/** A daemon of one device with these sources, in order of preference. */
export function withSources(
  t: Pick<Test, 'teardown'>,
  sources: readonly string[],
  args: readonly string[] = [],
): Promise<RngDaemon> {
  return startRngDaemon(t, {
    args: ['--allow-test-sources', ...sources.map((source) => `--source=${source}`), ...args],
  });
}

/** So many blocks of good bytes, and the window behind them, without which the last one stays where it is. */
export function blocks(count: number, stream: number): { readonly written: Buffer; readonly given: Buffer } {
  const written = goodBytes(count * BLOCK_BYTES + WINDOW_BYTES, stream);
  return { written, given: written.subarray(0, count * BLOCK_BYTES) };
}

/** The device is replaced: what was not read of it is gone. */
export function replace(fifo: Fifo): void {
  fifo.unplug();
  fifo.plug();
}
