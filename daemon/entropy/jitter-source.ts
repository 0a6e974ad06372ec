// `jitter`: the timing jitter of the CPU through libjitterentropy, as a raw source. A read waits while the library
// collects, so it belongs into a thread of its own. Source: jitterentropy(3).
import { Fault } from '../../protocol/fault.js';
import { Errno } from '../../shared-memory/errno.js';
import {
  JITTERENTROPY_SONAME,
  type JitterLibrary,
  loadJitterLibrary,
} from '../../shared-memory/jitterentropy.js';
import type { OpenSource } from './source.js';

/** A read waits for no more than this much, some 40 ms of work, so that its thread hears a stop. Ours. */
const READ_BYTES = 256;

/** What jent_entropy_init() found out about this CPU. Source: jitterentropy.h, "error codes for init function". */
const INIT_MEANINGS: Readonly<Record<number, string>> = {
  1: 'there is no timer',
  2: 'the timer is too coarse',
  3: 'the timer runs backwards',
  4: 'the timer varies too little',
  5: 'the timer’s variations do not vary',
  6: 'the timer’s variations vary too little',
  7: 'an error in the library',
  8: 'too many measurements are stuck',
  9: 'its health test failed',
  10: 'its repetition count test failed',
  11: 'its hash failed the self-test',
  12: 'it got no memory',
  13: 'its divisor search failed the self-test',
};

/** What a read that failed means. Source: jitterentropy(3), jent_read_entropy(). */
const READ_MEANINGS: Readonly<Record<number, string>> = {
  [-1]: 'the start-up test failed when it was run again',
  [-2]: 'the repetition count test failed',
  [-3]: 'the adaptive proportion test failed',
  [-4]: 'the timer thread could not be started',
  [-5]: 'the lag predictor test failed',
  [-6]: 'the repetition count test failed for good',
  [-7]: 'the adaptive proportion test failed for good',
  [-8]: 'the lag predictor test failed for good',
};

/** Opens the source; a fault of scope `daemon` says what is missing, or why this CPU is no good for it. */
export function openJitterSource(
  load: () => JitterLibrary | undefined = loadJitterLibrary,
): JitterSource | Fault {
  const library = load();
  if (library === undefined) {
    return new Fault(
      'daemon',
      'source_missing',
      `expected ${JITTERENTROPY_SONAME} for the source jitter, found none: type apt install libjitterentropy3 ` +
        '(Ubuntu 26.04 has it, Debian 12 does not), or use another --source',
    );
  }
  const code = library.init();
  if (code !== 0) return unusable(INIT_MEANINGS[code] ?? 'an unknown code', code);
  if (!library.allocate()) return unusable('no collector', 0);
  return new JitterSource(library);
}

function unusable(meaning: string, code: number): Fault {
  return new Fault(
    'daemon',
    'source_open',
    `expected a CPU whose timing libjitterentropy can use, got: ${meaning} (code ${code}); use another --source`,
  );
}

/** The library's collector, owned until close(). */
export class JitterSource implements OpenSource {
  readonly spec = 'jitter';
  /** What the last failed read meant; undefined before there was one. */
  failure: string | undefined;
  private readonly library: JitterLibrary;

  /** Takes a library whose collector is allocated. */
  constructor(library: JitterLibrary) {
    this.library = library;
  }

  /**
   * Waits for up to `length` bytes; EIO with {@link failure} when the library gives up. It has then tried everything:
   * the source stays failed until it is opened anew.
   */
  read(address: number, length: number): number {
    if (length === 0) return 0;
    if (this.failure !== undefined) return -Errno.EIO;
    // SAFETY: the caller has `length` bytes at `address`; the collector is there, since no read has failed yet.
    const result = this.library.read(address, Math.min(length, READ_BYTES));
    if (result > 0) return result;
    this.failure = READ_MEANINGS[result] ?? `jent_read_entropy_safe gave ${result}`;
    return -Errno.EIO;
  }

  close(): void {
    this.library.free();
  }
}
