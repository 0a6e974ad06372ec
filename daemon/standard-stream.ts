// Writing to standard output and standard error, whatever they are: nothing here waits, and nothing throws.
import { writeSync } from 'node:fs';
import { poll, POLLOUT } from '../shared-memory/libc.js';

export const STDOUT = 1;
export const STDERR = 2;
/** poll(2) promises that a pipe takes this much without blocking (PIPE_BUF). What is longer is cut. */
const MAX_WRITE_BYTES = 4096;

/** Writes a text that ends in a new line, all at once; false when it does not fit now or the stream is broken. */
export function offerTo(stream: number, text: string): boolean {
  if (poll(stream, POLLOUT, 0) !== POLLOUT) return false;
  const bytes = Buffer.from(text);
  const cut =
    bytes.length > MAX_WRITE_BYTES
      ? Buffer.concat([bytes.subarray(0, MAX_WRITE_BYTES - 1), Buffer.from('\n')])
      : bytes;
  try {
    return writeSync(stream, cut) === cut.length;
  } catch {
    return false;
  }
}
