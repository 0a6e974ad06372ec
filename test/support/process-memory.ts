// Looks through another process's memory for bytes that should not be there any more. Source: proc(5), /proc/PID/mem.
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

const CHUNK_BYTES = 2 ** 20;

/** How often `marker` occurs in the writable memory of a child process of this one. */
export function countInMemory(pid: number, marker: Buffer): number {
  const file = openSync(`/proc/${pid}/mem`, 'r');
  // Chunks overlap by all but one byte of the marker, so that each occurrence lies in exactly one of them whole.
  const chunk = Buffer.alloc(CHUNK_BYTES + marker.length - 1);
  let found = 0;
  try {
    for (const [start, end] of writableRanges(pid)) {
      for (let at = start; at < end; at += CHUNK_BYTES) {
        const length = readAt(file, chunk, at, Math.min(chunk.length, end - at));
        const part = chunk.subarray(0, length);
        for (let i = part.indexOf(marker); i >= 0; i = part.indexOf(marker, i + 1)) found++;
      }
    }
  } finally {
    closeSync(file);
  }
  return found;
}

function writableRanges(pid: number): [number, number][] {
  return [...readFileSync(`/proc/${pid}/maps`, 'utf8').matchAll(/^([0-9a-f]+)-([0-9a-f]+) rw/gm)].map(
    ([, start, end]) => [parseInt(start ?? '', 16), parseInt(end ?? '', 16)],
  );
}

/** Bytes read; 0 where the kernel gives none, as of a range that went away meanwhile. */
function readAt(file: number, chunk: Buffer, at: number, length: number): number {
  try {
    return readSync(file, chunk, 0, length, at);
  } catch {
    return 0;
  }
}
