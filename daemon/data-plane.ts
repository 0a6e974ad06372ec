// The main thread's handle on the data plane: starts its worker and the readers of sources, wakes it, stops it.
import { Worker } from 'node:worker_threads';
import { openEventfd, signal } from '../shared-memory/eventfd.js';
import type {
  Command,
  DataPlaneMessage,
  DataPlaneSetup,
  ReaderMessage,
  MainMessage,
  SourceSetup,
} from './data-plane-messages.js';
import { dispose } from './disposal.js';
import { createFedQueue, nudgeFedQueue, stopFedQueue } from './entropy/fed-queue.js';
import type { ReaderSetup } from './entropy/reader-thread.js';
import type { SourceSpec } from './entropy/source-spec.js';
import { SourceStatus } from './entropy/source-status.js';
import { SourceWatch } from './entropy/source-watch.js';
import { createMark } from './peer-calls.js';
import { PeerWatch } from './peer-watch.js';
import type { Limit } from './limiter.js';
import { createPulse, PulseWatch } from './pulse.js';
import type { DeviceOptions, Log } from './rng-device.js';

/** What the data plane tells the process. */
export interface DataPlaneEvents {
  readonly log: Log;
  /** The worker ended by itself: a bug, or no memory. */
  readonly failed: (reason: string) => void;
  /** The front-end of the only, inherited connection has gone. */
  readonly lastConnectionEnded: () => void;
}

/** The data plane and the readers hardly allocate, so the nursery for young objects may be small: it saves 10 MiB. */
const YOUNG_GENERATION_MIB = 2;
/** So long does the start wait for sources to be opened. */
const SOURCES_TIMEOUT_MS = 1000;

/** A change takes effect within a pass; after this time whoever waits for it is told. Ours. */
const COMMAND_TIMEOUT_MS = 2000;

/** A source's thread that has died is started again after the first time, then at growing intervals up to the longest. Ours. */
const FIRST_RESTART_MS = 1000;
const LONGEST_RESTART_MS = 60_000;

/** The running data plane. */
export class DataPlane {
  private readonly worker: Worker;
  private readonly wakeFd = openEventfd();
  private readonly sources: readonly SourceSetup[];
  readonly sourceWatch: SourceWatch;
  /** Resolves when every reader has tried to open its source. */
  private readonly tried: Promise<unknown>;
  /** Resolve as the threads end. */
  private readonly exited: Promise<void>[] = [];
  private stopping = false;
  private hasEnded = false;
  private readonly pulse: PulseWatch;
  /** Commands that are under way, by number. */
  private readonly commands = new Map<number, () => void>();
  private commandCount = 0;

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
    this.sources = setup.sources.map((spec) => ({
      spec,
      status: new SourceStatus().place,
      queue: createFedQueue(),
    }));
    this.sourceWatch = new SourceWatch(
      this.sources.map(({ spec, status, queue }) => ({
        spec: spec.text,
        status: new SourceStatus(status),
        queue,
      })),
      events.log,
    );
    this.tried = Promise.all(this.sources.map((source) => this.startReader(source, events.log)));
    const { devices, busyPollUs, total } = setup;
    const mark = createMark();
    new PeerWatch(mark).start();
    const pulse = createPulse();
    this.pulse = new PulseWatch(pulse, () => signal(this.wakeFd));
    const workerData: DataPlaneSetup = {
      wakeFd: this.wakeFd,
      mark,
      pulse,
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
      if (message.kind === 'source') this.sourceWatch.take(message);
      if (message.kind === 'sourceSwitch') this.sourceWatch.switched(message.to, message.from);
      if (message.kind === 'done') this.commands.get(message.id)?.();
      if (message.kind === 'dispose') dispose(message);
      if (message.kind === 'lastConnectionEnded') events.lastConnectionEnded();
      if (message.kind === 'serving') this.serving.resolve();
    });
    this.worker.on('error', (error) => events.failed(error.stack ?? error.message));
    this.exited.push(
      new Promise((resolve) => {
        this.worker.on('exit', () => {
          resolve();
          this.hasEnded = true;
          if (!this.stopping) events.failed('the data-plane thread has ended');
        });
      }),
    );
  }

  private readonly serving = deferred();

  /** Resolves once every device accepts, and the sources were tried to be opened, which a driver must not hold up. */
  get ready(): Promise<void> {
    const late = new Promise((resolve) => setTimeout(resolve, SOURCES_TIMEOUT_MS).unref());
    return Promise.race([this.tried, late]).then(() => this.serving.promise);
  }

  /**
   * Starts the thread that reads and tests a source; one that dies is started again, after `restartMs` or more. Resolves
   * when it has tried to open the source.
   */
  private startReader(source: SourceSetup, log: Log, restartMs = FIRST_RESTART_MS): Promise<void> {
    const { spec, status, queue } = source;
    const workerData: ReaderSetup = { spec, status, queue, wakeFd: this.wakeFd };
    const reader = new Worker(new URL('./entropy/reader-thread.js', import.meta.url), {
      workerData,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MIB },
    });
    const tried = deferred();
    reader.on('message', (message: ReaderMessage) => {
      if (message.kind === 'tried') tried.resolve();
      else this.sourceWatch.take(message);
    });
    reader.on('error', (error) =>
      log('error', 'internal', `the reader of ${spec.text} died: ${error.stack ?? error.message}`, {
        source: spec.text,
      }),
    );
    this.exited.push(
      new Promise((resolve) => {
        reader.on('exit', () => {
          resolve();
          tried.resolve();
          if (!this.stopping) this.restartReader(source, log, restartMs);
        });
      }),
    );
    return tried.promise;
  }

  /** For its guests a source whose thread has died is one that has failed: nothing that waits of it is used. */
  private restartReader(source: SourceSetup, log: Log, delayMs: number): void {
    const status = new SourceStatus(source.status);
    status.raiseAlarm(status.permanent);
    status.setFigure('waitingSinceMs', 0);
    status.setState('failed');
    const reason = 'the thread that reads it has died';
    this.sourceWatch.take({ kind: 'source', spec: source.spec.text, state: 'failed', reason });
    const nextMs = Math.min(2 * delayMs, LONGEST_RESTART_MS);
    setTimeout(() => {
      if (!this.stopping) void this.startReader(source, log, nextMs);
    }, delayMs).unref();
  }

  /** Tries every source that has failed again at once, also those that have failed for good; the specs of these. */
  enableSources(): string[] {
    const enabled: string[] = [];
    for (const { spec, status, queue } of this.sources) {
      const known = new SourceStatus(status);
      if (known.stored !== 'failed') continue;
      enabled.push(spec.text);
      known.enable();
      nudgeFedQueue(queue);
    }
    return enabled;
  }

  /** Looks from now on whether the data plane turns. */
  watchPulse(): void {
    this.pulse.start();
  }

  /** False when the data plane has not turned for some time, or has ended. */
  get isAlive(): boolean {
    return !this.hasEnded && this.pulse.isBeating;
  }

  /** Has a change made: true when it is in force, false when the data plane has not answered in time. */
  async command(command: Command): Promise<boolean> {
    const id = ++this.commandCount;
    const done = new Promise<boolean>((resolve) => {
      const deadline = setTimeout(() => resolve(false), COMMAND_TIMEOUT_MS);
      this.commands.set(id, () => {
        clearTimeout(deadline);
        resolve(true);
      });
    });
    this.tell({ kind: 'command', id, command });
    return done.finally(() => this.commands.delete(id));
  }

  private tell(message: MainMessage): void {
    this.worker.postMessage(message);
    signal(this.wakeFd);
  }

  /** Ends every connection and both kinds of threads; resolves when all threads have ended. */
  async stop(): Promise<void> {
    this.stopping = true;
    this.sourceWatch.stop();
    for (const { queue } of this.sources) stopFedQueue(queue);
    this.pulse.stop();
    this.tell({ kind: 'stop' });
    await Promise.all(this.exited);
  }
}

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((settle) => (resolve = settle));
  return { promise, resolve };
}
