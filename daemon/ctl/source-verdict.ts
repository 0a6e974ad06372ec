// What a test of a source comes to: whether it passes, and what it is good for. Pure: counts in, sentences out.
import { WINDOWS_PER_BLOCK } from '../entropy/health-tests.js';
import type { SourceTest } from './source-test.js';
import { durationText } from '../units.js';

/** How it is suited to serve guests. `slow`: with another one behind it; `unknown`: too little has come to tell. */
export type Suitability = 'good' | 'slow' | 'unsuitable' | 'unknown';

/** A test that has ended, judged. */
export interface SourceVerdict {
  readonly passes: boolean;
  /** Why it does not pass, a sentence without a subject; null: it does. */
  readonly problem: string | null;
  readonly suitability: Suitability;
  /** What that means for an operator. */
  readonly advice: string;
}

/** A source gives its first bytes when a block and the window behind it have passed. */
const WINDOWS_TO_START = WINDOWS_PER_BLOCK + 1;
/** A guest that reads /dev/hwrng all the time takes some 600 KiB/s; one that only seeds itself, 1 KiB a minute at most. Ours. */
const FAST_BYTES_PER_SECOND = 64 * 1024;
const SEEDING_BYTES_PER_SECOND = 1024;
/** Ours. */
const STALLED_PAUSES = 4;
const STALLED_SECONDS = 1;
/** What one delivery of the tests has at least. */
const BLOCK_BYTES = 2560;

/** Judges `test`; `ofKernel`: it is the kernel's generator, of whose entropy no test tells. */
export function judgeSource(test: SourceTest, ofKernel: boolean): SourceVerdict {
  const { problem, windows, bytes, bytesPerSecond } = test;
  if (problem !== null)
    return windows > 0
      ? fails(problem, 'unsuitable', 'do not give its bytes to guests: others may know or guess them')
      : fails(problem, 'unsuitable', 'it cannot be used here as it is');
  if (bytes === 0) return fails(tooLittle(test), 'unknown', 'try it for longer with --seconds');
  if (hasStalled(test)) {
    const silence = `it has stalled: nothing has come for the last ${durationText(test.silentSeconds)}`;
    return fails(silence, 'unsuitable', 'guests would wait for it: put another --source behind it');
  }
  const caveat = ofKernel
    ? "; its tests tell that it works, not what the kernel's entropy is worth: its output is that of a cipher"
    : '';
  const suitability = bytesPerSecond >= FAST_BYTES_PER_SECOND ? 'good' : 'slow';
  return { passes: true, problem: null, suitability, advice: `${adviceFor(bytesPerSecond)}${caveat}` };
}

function fails(problem: string, suitability: Suitability, advice: string): SourceVerdict {
  return { passes: false, problem, suitability, advice };
}

function adviceFor(bytesPerSecond: number): string {
  if (bytesPerSecond >= FAST_BYTES_PER_SECOND) return 'fast enough to be the only source';
  return bytesPerSecond >= SEEDING_BYTES_PER_SECOND
    ? 'fast enough for guests that seed themselves; put --source=random behind it for those that read more'
    : 'too slow to be the only source: put --source=random behind it';
}

function tooLittle({ windows, seconds }: SourceTest): string {
  const time = seconds < 1 ? `${Math.round(seconds * 1000)} ms` : durationText(seconds);
  return windows === 0
    ? `it has given nothing, or less than a window of 512 bytes, in ${time}`
    : `it has given ${windows} of the ${WINDOWS_TO_START} windows of 512 bytes that its start takes, in ${time}`;
}

/** A silence that is much longer than the pauses of a slow source. */
function hasStalled({ seconds, silentSeconds, bytes }: SourceTest): boolean {
  const pause = Math.max(0, seconds - silentSeconds) / Math.max(1, bytes / BLOCK_BYTES);
  return silentSeconds >= STALLED_SECONDS && silentSeconds > STALLED_PAUSES * pause;
}
