// Tries a source here, without a daemon: read and tested by the very thread that a daemon would read it with, as fast as it goes.
// Its bytes are counted and forgotten.
import { Worker } from 'node:worker_threads';
import { closeFd } from '../../shared-memory/fd.js';
import { openEventfd, readEventfd } from '../../shared-memory/eventfd.js';
import { poll, POLLIN } from '../../shared-memory/libc.js';
import { Mapping } from '../../shared-memory/mapping.js';
import type { ReaderMessage } from '../data-plane-messages.js';
import { createFedQueue, FedSource, nudgeFedQueue, stopFedQueue } from '../entropy/fed-queue.js';
import { HealthCount } from '../entropy/health-tests.js';
import type { ReaderSetup } from '../entropy/reader-thread.js';
import type { SourceSpec } from '../entropy/source-spec.js';
import { SourceStatus } from '../entropy/source-status.js';
import { READER_THREAD } from '../threads.js';

/** How far a test has come, or how it has ended. */
export interface SourceTest {
  readonly spec: string;
  /** Since it was open. */
  readonly seconds: number;
  /** Bytes that have passed every test. */
  readonly bytes: number;
  readonly bytesPerSecond: number;
  /** Since bytes last came. */
  readonly silentSeconds: number;
  /** Windows of 512 bytes that were tested, and those that an alarm was raised for, by test. */
  readonly windows: number;
  readonly alarms: { readonly repetition: number; readonly adaptive: number; readonly permanent: number };
  /** Blocks of 64 bytes that were seen before. */
  readonly repeatedBlocks: number;
  readonly fips: { readonly blocks: number; readonly failures: number };
  /** Why it cannot be used, as a sentence without a subject; null: nothing that could be seen. */
  readonly problem: string | null;
}

/** When a test ends: after so long, after so many bytes, or when it is told to. */
export interface TestEnd {
  readonly seconds: number;
  readonly bytes: number;
  readonly until: AbortSignal;
}

const CHUNK_BYTES = 4096;
const PROGRESS_EVERY_MS = 200;
/** A source that has nothing is waited for so long; then messages and signals have their turn. Ours. */
const IDLE_MS = 20;
/** A reader that does not end within this hangs in a driver. Ours. */
const STOP_TIMEOUT_MS = 500;

/** Five equal bytes in a row come once in so many good ones; no other test alarms nearly as often. See docs/entropy-tests.md. */
const BYTES_PER_ALARM = 2 ** 32;
/** More than so many times what is expected is more than chance. Ours. */
const ALARMS_PER_EXPECTED = 4;
/** An alarm that comes earlier is no chance: good bytes give one that early once in 4,096 tests. Ours. */
const LEAST_BYTES_BEFORE_ALARM = 2 ** 20;

let hanging = 0;

/** True while a reader hangs in a driver: process.exit() would wait for it. */
export function isReaderHanging(): boolean {
  return hanging > 0;
}

/** Reads and tests `spec` until the end; gives a look at how it stands now and then. */
export async function testSource(
  spec: SourceSpec,
  end: TestEnd,
  progress: (test: SourceTest) => void,
): Promise<SourceTest> {
  const reader = new TestReader(spec);
  let lastProgressMs = performance.now();
  while (!reader.hasEnded(end)) {
    if (reader.drain() === 0) reader.waitForBytes();
    await new Promise(setImmediate);
    if (performance.now() - lastProgressMs < PROGRESS_EVERY_MS) continue;
    lastProgressMs = performance.now();
    progress(reader.test());
  }
  const test = reader.test();
  await reader.close();
  return test;
}

/** One source's thread, and this end of its queue. */
class TestReader {
  private readonly spec: SourceSpec;
  private readonly status = new SourceStatus();
  private readonly queue = createFedQueue();
  private readonly source: FedSource;
  private readonly wakeFd = openEventfd();
  private readonly scratch = Mapping.forSecrets(CHUNK_BYTES).mapping;
  private readonly worker: Worker;
  /** When it was open, as far as is known; a driver that hangs in open(2) never is. */
  private openMs = performance.now();
  private lastBytesMs = this.openMs;
  private problem: string | null = null;
  /** Alarms up to the last failure. */
  private alarms = 0;
  private bytes = 0;

  constructor(spec: SourceSpec) {
    this.spec = spec;
    this.source = new FedSource(spec.text, this.queue, this.status);
    const workerData: ReaderSetup = {
      spec,
      status: this.status.place,
      queue: this.queue,
      wakeFd: this.wakeFd,
    };
    this.worker = new Worker(READER_THREAD, { workerData });
    this.worker.on('message', (message: ReaderMessage) => {
      // Starting the thread is no time of the source's.
      if (message.kind === 'tried' && this.bytes === 0) this.openMs = this.lastBytesMs = performance.now();
      if (message.kind === 'source' && message.state === 'failed') this.failed(message.reason);
    });
    this.worker.on('error', (error) => (this.problem = `its reader died: ${error.message}`));
  }

  /** Good bytes too raise a transient alarm now and then: the source is taken on at once, as a daemon takes it. */
  private failed(reason: string): void {
    const { alarms, permanent } = this.status;
    const isAlarm = alarms > this.alarms;
    this.alarms = alarms;
    const allowed = 1 + ALARMS_PER_EXPECTED * (this.bytes / BYTES_PER_ALARM);
    if (isAlarm && !permanent && this.bytes >= LEAST_BYTES_BEFORE_ALARM && alarms <= allowed) {
      this.status.enable();
      nudgeFedQueue(this.queue);
      return;
    }
    this.problem = reason;
  }

  private get seconds(): number {
    return (performance.now() - this.openMs) / 1000;
  }

  /** A source that has failed is not waited for: it would be tried again, and this is about how it is now. */
  hasEnded({ seconds, bytes, until }: TestEnd): boolean {
    return until.aborted || this.problem !== null || this.seconds >= seconds || this.bytes >= bytes;
  }

  /** Takes what has passed; the bytes taken. */
  drain(): number {
    let taken = 0;
    for (let got = -1; got !== 0 && taken < 64 * CHUNK_BYTES; taken += got)
      got = this.source.read(this.scratch.address, CHUNK_BYTES);
    if (taken > 0) this.lastBytesMs = performance.now();
    this.bytes += taken;
    return taken;
  }

  /** Blocks this thread for a moment, until the reader has handed something over. */
  waitForBytes(): void {
    if (poll(this.wakeFd, POLLIN, IDLE_MS) > 0) readEventfd(this.wakeFd);
  }

  test(): SourceTest {
    const { bytes, seconds, status } = this;
    const count = (what: HealthCount): number => status.counts[what] ?? 0;
    return {
      spec: this.spec.text,
      seconds,
      bytes,
      bytesPerSecond: seconds > 0 ? bytes / seconds : 0,
      silentSeconds: (performance.now() - this.lastBytesMs) / 1000,
      windows: count(HealthCount.Windows),
      alarms: {
        repetition: count(HealthCount.RepetitionAlarms),
        adaptive: count(HealthCount.AdaptiveAlarms),
        permanent: count(HealthCount.PermanentAlarms),
      },
      repeatedBlocks: count(HealthCount.RepeatedBlocks),
      fips: { blocks: count(HealthCount.FipsBlocks), failures: count(HealthCount.FipsFailures) },
      problem: this.problem,
    };
  }

  /** Ends the thread, unless it hangs. */
  async close(): Promise<void> {
    hanging++;
    const exited = new Promise<boolean>((resolve) => this.worker.once('exit', () => resolve(true)));
    stopFedQueue(this.queue);
    const late = new Promise<boolean>((resolve) => setTimeout(() => resolve(false), STOP_TIMEOUT_MS));
    if (await Promise.race([exited, late])) {
      hanging--;
      closeFd(this.wakeFd);
    }
    this.source.close();
    this.scratch.view(0, CHUNK_BYTES).fill(0);
    this.scratch.unmap();
  }
}
