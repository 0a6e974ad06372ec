// A second processor of a synthetic guest: a thread that rewrites descriptors while the device may be looking at them.
import { workerData } from 'node:worker_threads';
import { Mapping } from '../../shared-memory/mapping.js';

/** What the thread is started with. */
export interface FlipSetup {
  /** The guest's memory file; the thread maps it for itself. */
  readonly fd: number;
  readonly bytes: number;
  /** Where the descriptor table lies in the file, and how many entries are flipped. */
  readonly descOffset: number;
  readonly count: number;
  /** Values of the low word of the address, of the length, and of flags and next together. */
  readonly addresses: readonly number[];
  readonly lengths: readonly number[];
  readonly flagWords: readonly number[];
  /** Word 0: not 0 to stop. Word 1: rounds made. */
  readonly control: SharedArrayBuffer;
}

const setup = workerData as FlipSetup;
const mapping = Mapping.ofFile(setup.fd, 0, setup.bytes, false);
if (typeof mapping === 'number') throw new Error(`mmap: ${mapping}`);
const bytes = mapping.view(setup.descOffset, setup.count * 16);
const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
const control = new Int32Array(setup.control);

/** Each field takes its own steps, so that every combination occurs, also ones that no driver ever meant. */
for (let round = 0; Atomics.load(control, 0) === 0; round++) {
  for (let i = 0; i < setup.count; i++) {
    words[4 * i] = setup.addresses[(round + i) % setup.addresses.length] ?? 0;
    words[4 * i + 2] = setup.lengths[(round >> 1) % setup.lengths.length] ?? 0;
    words[4 * i + 3] = setup.flagWords[(round >> 2) % setup.flagWords.length] ?? 0;
  }
  Atomics.add(control, 1, 1);
}
