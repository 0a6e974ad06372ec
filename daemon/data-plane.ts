// The main thread's handle on the data plane: starts its worker and the readers of sources, wakes it, stops it.
import { Worker } from 'node:worker_threads';
import { openEventfd, signal } from '../shared-memory/eventfd.js';
import type { DataPlaneMessage, DataPlaneSetup, SourceSetup, StopMessage } from './data-plane-messages.js';
import { dispose } from './disposal.js';
import { createFedQueue, stopFedQueue } from './entropy/fed-queue.js';
import type { ReaderMessage, ReaderSetup } from './entropy/reader-thread.js';
import { isKernelRandom } from './entropy/source.js';
import type { SourceSpec } from './entropy/source-spec.js';
import { createSignalMark, SignalWatch } from './signal-watch.js';
import type { Limit } from './limiter.js';
import type { DeviceOptions, Log } from './rng-device.js';

/** What the data plane tells the process. */
export interface DataPlaneEvents {
  readonly log: Log;
  /** The worker ended by itself: a bug, or no memory. */
  readonly failed: (reason: string) => void;
  /** The front-end of the only, inherited connection has gone. */
  readonly lastConnectionEnded: () => void;
}

/** The data plane hardly allocates, so the nursery for young objects may be small: it saves 10 MiB. */
const YOUNG_GENERATION_MIB = 2;

/** The running data plane. */
export class DataPlane {
  private readonly worker: Worker;
  private readonly wakeFd = openEventfd();
  private readonly sources: readonly SourceSetup[];
  /** Resolve as the threads end. */
  private readonly exited: Promise<void>[] = [];
  private stopping = false;

  /** Starts serving `devices` with `sources` in order of preference. Throws when a source cannot be opened. */
  constructor(
    setup: {
      readonly devices: readonly DeviceOptions[];
      readonly sources: readonly SourceSpec[];
      readonly busyPollUs: number;
      readonly total: Limit | undefined;
    },
    events: DataPlaneEvents,
  ) {
    this.sources = setup.sources.map((spec) =>
      spec.kind === 'getrandom' || (spec.kind === 'random' && isKernelRandom(spec.path))
        ? { kind: 'immediate', spec }
        : { kind: 'fed', spec, ...createFedQueue() },
    );
    for (const source of this.sources) {
      if (source.kind === 'fed') this.startReader(source, events.log);
    }
    const { devices, busyPollUs, total } = setup;
    const signalMark = createSignalMark();
    const watch = new SignalWatch(signalMark);
    const workerData: DataPlaneSetup = {
      wakeFd: this.wakeFd,
      signalMark,
      busyPollUs,
      total,
      sources: this.sources,
      devices,
    };
    this.worker = new Worker(new URL('./data-plane-worker.js', import.meta.url), {
      workerData,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MIB },
    });
    this.worker.on('message', (message: DataPlaneMessage) => {
      if (message.kind === 'log') events.log(message.level, message.code, message.message, message.fields);
      if (message.kind === 'connections') watch.run(message.count > 0);
      if (message.kind === 'dispose') dispose(message.what);
      if (message.kind === 'lastConnectionEnded') events.lastConnectionEnded();
      if (message.kind === 'serving') this.serving.resolve();
    });
    this.worker.on('error', (error) => events.failed(error.stack ?? error.message));
    this.exited.push(
      new Promise((resolve) => {
        this.worker.on('exit', () => {
          resolve();
          if (!this.stopping) events.failed('the data-plane thread has ended');
        });
      }),
    );
  }

  private readonly serving = deferred();

  /** Resolves once every device accepts. */
  get ready(): Promise<void> {
    return this.serving.promise;
  }

  private startReader(source: Extract<SourceSetup, { kind: 'fed' }>, log: Log): void {
    if (!('path' in source.spec)) throw new Error(`no reader for ${source.spec.text} yet`);
    const workerData: ReaderSetup = {
      path: source.spec.path,
      place: { address: source.address, control: source.control },
      wakeFd: this.wakeFd,
    };
    const reader = new Worker(new URL('./entropy/reader-thread.js', import.meta.url), { workerData });
    const fields = { source: source.spec.text };
    reader.on('message', (message: ReaderMessage) => {
      if (message.kind === 'failed') {
        log(
          'error',
          'source_failed',
          `reading ${source.spec.text} failed: ${message.reason}; trying again`,
          fields,
        );
      } else {
        log('info', 'source_back', `${source.spec.text} delivers again`, fields);
      }
    });
    reader.on('error', (error) =>
      log('error', 'internal', `the reader of ${source.spec.text} died: ${error.message}`, fields),
    );
    this.exited.push(new Promise((resolve) => reader.on('exit', () => resolve())));
  }

  /** Ends every connection and both kinds of threads; resolves when all threads have ended. */
  async stop(): Promise<void> {
    this.stopping = true;
    for (const source of this.sources) if (source.kind === 'fed') stopFedQueue(source);
    const message: StopMessage = { kind: 'stop' };
    this.worker.postMessage(message);
    signal(this.wakeFd);
    await Promise.all(this.exited);
  }
}

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((settle) => (resolve = settle));
  return { promise, resolve };
}
