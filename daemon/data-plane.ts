// The main thread's handle on the data plane: starts its worker and the readers of sources, wakes it, stops it.
import { Worker } from 'node:worker_threads';
import { openEventfd, signal } from '../shared-memory/eventfd.js';
import type { Command, DataPlaneMessage, DataPlaneSetup, MainMessage } from './data-plane-messages.js';
import { dispose } from './disposal.js';
import type { SourceSpec } from './entropy/source-spec.js';
import type { Left } from './handover/inherited.js';
import { createMark } from './peer-calls.js';
import { PeerWatch } from './peer-watch.js';
import type { Limit } from './limiter.js';
import { createPulse, PulseWatch } from './pulse.js';
import type { DeviceOptions, Log } from './rng-device.js';
import { SourceReaders } from './source-readers.js';
import { DATA_PLANE_THREAD } from './threads.js';
import { type Failure, failureOf } from './too-few-files.js';

/** What the data plane tells the process. */
export interface DataPlaneEvents {
  readonly log: Log;
  /** The worker ended by itself: a bug, or no memory. */
  readonly failed: (failure: Failure) => void;
  /** The front-end of the only, inherited connection has gone. */
  readonly lastConnectionEnded: () => void;
}

/** The data plane hardly allocates, so the nursery for young objects may be small: it saves 10 MiB. */
const YOUNG_GENERATION_MIB = 2;
/** So long does the start wait for sources to be opened. */
const SOURCES_TIMEOUT_MS = 1000;

/** A change takes effect within a pass; after this time whoever waits for it is told. Ours. */
const COMMAND_TIMEOUT_MS = 2000;

/** The running data plane. */
export class DataPlane {
  private readonly worker: Worker;
  private readonly wakeFd = openEventfd();
  readonly readers: SourceReaders;
  /** Resolves when every reader has tried to open its source. */
  private readonly tried: Promise<unknown>;
  /** Resolves when the thread has ended. */
  private readonly exited: Promise<void>;
  private stopping = false;
  private hasEnded = false;
  private readonly pulse: PulseWatch;
  /** Commands that are under way, by number. */
  private readonly commands = new Map<number, () => void>();
  private commandCount = 0;
  private freezing: { readonly id: number; readonly frozen: (sent: boolean) => void } | undefined;

  /** Starts serving `devices` with `sources` in order of preference, each in a thread of its own. */
  constructor(
    setup: {
      readonly devices: readonly DeviceOptions[];
      readonly sources: readonly SourceSpec[];
      readonly busyPollUs: number;
      readonly total: Limit | undefined;
      readonly totalLedger: number;
      readonly keepAt: string | undefined;
      readonly left: Left;
    },
    events: DataPlaneEvents,
  ) {
    this.readers = new SourceReaders(this.wakeFd, events.log);
    const started = setup.sources.map((spec) => this.readers.start(spec));
    this.tried = Promise.all(started.map(({ tried }) => tried));
    const { devices, busyPollUs, total, totalLedger, keepAt, left } = setup;
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
      totalLedger,
      keepAt,
      left,
      sources: started.map((source) => source.setup),
      devices,
    };
    this.worker = new Worker(DATA_PLANE_THREAD, {
      workerData,
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_GENERATION_MIB },
    });
    this.worker.on('message', (message: DataPlaneMessage) => {
      if (message.kind === 'log') events.log(message.level, message.code, message.message, message.fields);
      if (message.kind === 'source') this.readers.watch.take(message);
      if (message.kind === 'sourceSwitch') this.readers.watch.switched(message.to, message.from);
      if (message.kind === 'done') this.commands.get(message.id)?.();
      if (message.kind === 'dispose') dispose(message);
      if (message.kind === 'frozen' && message.id === this.freezing?.id) this.freezing.frozen(message.sent);
      if (message.kind === 'lastConnectionEnded') events.lastConnectionEnded();
      if (message.kind === 'serving') this.serving.resolve();
    });
    this.worker.on('error', (error) => events.failed(failureOf(error)));
    this.exited = new Promise((resolve) => {
      this.worker.on('exit', () => {
        resolve();
        this.hasEnded = true;
        if (!this.stopping) events.failed({ code: 'internal', text: 'the data-plane thread has ended' });
      });
    });
  }

  private readonly serving = deferred();

  /** Resolves once every device accepts, and the sources were tried to be opened, which a driver must not hold up. */
  get ready(): Promise<void> {
    const late = new Promise((resolve) => setTimeout(resolve, SOURCES_TIMEOUT_MS).unref());
    return Promise.race([this.tried, late]).then(() => this.serving.promise);
  }

  /** Reads one source more; true when devices can draw from it. */
  async addSource(spec: SourceSpec): Promise<boolean> {
    const { setup } = this.readers.start(spec);
    return this.command({ kind: 'addSource', source: setup });
  }

  /** Reads a source no more that no device draws from; false: the data plane has not answered in time. */
  async removeSource(spec: string): Promise<boolean> {
    // Memory of a source is given back when the data plane has closed its end, and not before.
    const closed = await this.command({ kind: 'removeSource', spec });
    if (closed) this.readers.remove(spec);
    return closed;
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

  /** Stops serving, and sends all that another process needs to go on; false when it could not. Until {@link thaw} or {@link stop}. */
  async freeze(address: string): Promise<boolean> {
    const id = ++this.commandCount;
    const sent = new Promise<boolean>((frozen) => (this.freezing = { id, frozen }));
    this.tell({ kind: 'freeze', id, address });
    return sent;
  }

  /** Serves again. */
  thaw(): void {
    this.tell({ kind: 'thaw' });
  }

  /** Ends every connection, or leaves all of them for the next process, and both kinds of threads; resolves when all threads have ended. */
  async stop(keep: boolean): Promise<void> {
    this.stopping = true;
    this.pulse.stop();
    const read = this.readers.stop();
    this.tell({ kind: 'stop', keep });
    await Promise.all([this.exited, read]);
  }
}

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((settle) => (resolve = settle));
  return { promise, resolve };
}
