// The threads that read the sources: each is started, restarted when it dies, and ended here, on the main thread.
import { Worker } from 'node:worker_threads';
import type { ReaderMessage, SourceSetup } from './data-plane-messages.js';
import { createFedQueue, freeFedQueue, nudgeFedQueue, stopFedQueue } from './entropy/fed-queue.js';
import type { ReaderSetup } from './entropy/reader-thread.js';
import type { SourceSpec } from './entropy/source-spec.js';
import { SourceStatus } from './entropy/source-status.js';
import { SourceWatch } from './entropy/source-watch.js';
import type { Log } from './rng-device.js';
import { READER_THREAD } from './threads.js';
import { failureOf } from './too-few-files.js';

/** Readers hardly allocate, so the nursery for young objects may be small: it saves megabytes. */
const YOUNG_GENERATION_MIB = 2;
/** A source's thread that has died is started again after the first time, then at growing intervals up to the longest. Ours. */
const FIRST_RESTART_MS = 1000;
const LONGEST_RESTART_MS = 60_000;

/** One source and its thread. */
interface Reader {
  readonly setup: SourceSetup;
  /** Resolves when the thread that runs now has ended. */
  exited: Promise<void>;
  stopping: boolean;
}

/** All of them. */
export class SourceReaders {
  readonly watch: SourceWatch;
  private readonly wakeFd: number;
  private readonly log: Log;
  private readonly readers = new Map<string, Reader>();
  /** Of sources that were removed, and have not ended yet. */
  private readonly leaving = new Set<Promise<void>>();

  /** `wakeFd`: the data plane's wake-up eventfd, borrowed. */
  constructor(wakeFd: number, log: Log) {
    this.wakeFd = wakeFd;
    this.log = log;
    this.watch = new SourceWatch(log);
  }

  /** Starts to read a source. `tried` resolves when its thread has tried to open it. */
  start(spec: SourceSpec): { readonly setup: SourceSetup; readonly tried: Promise<void> } {
    const status = new SourceStatus();
    const setup = { spec, status: status.place, queue: createFedQueue() };
    this.watch.add({ spec: spec.text, status, queue: setup.queue });
    const reader: Reader = { setup, exited: Promise.resolve(), stopping: false };
    this.readers.set(spec.text, reader);
    return { setup, tried: this.run(reader, FIRST_RESTART_MS) };
  }

  /** Starts the thread; one that dies is started again, after `restartMs` or more. Resolves when it has tried to open the source. */
  private run(reader: Reader, restartMs: number): Promise<void> {
    const { spec, status, queue } = reader.setup;
    const workerData: ReaderSetup = { spec, status, queue, wakeFd: this.wakeFd };
    const thread = new Worker(READER_THREAD, {
      workerData,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MIB },
    });
    thread.on('error', (error) => {
      const { code, text } = failureOf(error);
      this.log('error', code, `the reader of ${spec.text} died: ${text}`, { source: spec.text });
    });
    reader.exited = new Promise((resolve) => {
      thread.on('exit', () => {
        resolve();
        if (!reader.stopping) this.restart(reader, restartMs);
      });
    });
    return new Promise((resolve) => {
      thread.on('message', (message: ReaderMessage) => {
        if (message.kind === 'tried') resolve();
        else this.watch.take(message);
      });
      thread.on('exit', () => resolve());
    });
  }

  /** For its guests a source whose thread has died is one that has failed: nothing that waits of it is used. */
  private restart(reader: Reader, delayMs: number): void {
    const { spec, status } = reader.setup;
    const known = new SourceStatus(status);
    known.raiseAlarm(known.permanent);
    known.setFigure('waitingSinceMs', 0);
    known.setState('failed');
    const reason = 'the thread that reads it has died';
    this.watch.take({ kind: 'source', spec: spec.text, state: 'failed', reason });
    setTimeout(() => {
      if (!reader.stopping) void this.run(reader, Math.min(2 * delayMs, LONGEST_RESTART_MS));
    }, delayMs).unref();
  }

  /** Ends the reader of a source that the data plane has closed, and gives its memory back. */
  remove(spec: string): void {
    const reader = this.readers.get(spec);
    if (reader === undefined) return;
    this.readers.delete(spec);
    this.watch.remove(spec);
    reader.stopping = true;
    stopFedQueue(reader.setup.queue);
    const ended = reader.exited.then(() => {
      freeFedQueue(reader.setup.queue);
      this.leaving.delete(ended);
    });
    this.leaving.add(ended);
  }

  /** Tries sources that have failed again at once, also those that have failed for good; `only` one of them. The specs of these. */
  enable(only?: string): string[] {
    const enabled: string[] = [];
    for (const { setup } of this.readers.values()) {
      const { spec, status, queue } = setup;
      const known = new SourceStatus(status);
      if (known.stored !== 'failed' || (only !== undefined && only !== spec.text)) continue;
      enabled.push(spec.text);
      known.enable();
      nudgeFedQueue(queue);
    }
    return enabled;
  }

  /** Ends all of them; resolves when all threads have ended. */
  async stop(): Promise<void> {
    this.watch.stop();
    for (const reader of this.readers.values()) {
      reader.stopping = true;
      stopFedQueue(reader.setup.queue);
    }
    await Promise.all([...[...this.readers.values()].map(({ exited }) => exited), ...this.leaving]);
  }
}
