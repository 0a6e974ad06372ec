// The main thread's view of the sources: what each is fit for and why, and a log line for each change.
//
// States come by message from the thread that reads a source. That one has become slow nobody can tell but who looks from
// outside, since its reader may be blocked: this is done here, from when the data plane finds a source's queue empty until
// it is no longer waited for. While nobody waits, nothing wakes up here.
import { MonotonicClock } from '../../shared-memory/monotonic-clock.js';
import type { SourceMessage } from '../data-plane-messages.js';
import { LogThrottle } from '../log-throttle.js';
import type { Log } from '../rng-device.js';
import { type FedQueuePlace, isWanted, whenWanted } from './fed-queue.js';
import { SLOW_AFTER_MS, type SourceState, type SourceStatus } from './source-status.js';

const LOOK_EVERY_MS = 500;
/** Lines of one kind about one source in 10 s. Ours. */
const LINES = 2;

/** One source as the operator sees it. */
export interface WatchedSource {
  readonly spec: string;
  readonly status: SourceStatus;
  readonly queue: FedQueuePlace;
  /** Why it is in its state, as a sentence without a subject. */
  reason: string;
  /** As it was last told. */
  told: SourceState;
  hasFailed: boolean;
  /** A look follows when the data plane waits for it. */
  awaited: boolean;
}

/** A source that is starting, or whose bytes are waited for, may become slow, or stop being that; a failed one tells by itself. */
function mayChange({ told, queue }: WatchedSource): boolean {
  return told === 'starting' || (told !== 'failed' && isWanted(queue));
}

/** Keeps and logs the states of all sources. */
export class SourceWatch {
  readonly sources: WatchedSource[] = [];
  private readonly log: Log;
  private readonly throttle = new LogThrottle(LINES);
  private readonly clock = new MonotonicClock();
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  constructor(log: Log) {
    this.log = log;
  }

  /** Watches a source from its start on. */
  add(source: Pick<WatchedSource, 'spec' | 'status' | 'queue'>): void {
    this.sources.push({
      ...source,
      reason: 'it has not passed its start-up test yet',
      told: 'starting',
      hasFailed: false,
      awaited: false,
    });
    this.lookAgain();
  }

  /** Forgets a source that is read no more. */
  remove(spec: string): void {
    const at = this.sources.findIndex((source) => source.spec === spec);
    if (at >= 0) this.sources.splice(at, 1);
  }

  /** The state of a source now. */
  stateOf({ status }: WatchedSource): SourceState {
    this.clock.read();
    return status.stateAt(this.clock.nowMs[0] ?? 0);
  }

  /** The thread that reads a source has something to tell. */
  take({ spec, state, reason }: SourceMessage): void {
    const source = this.sources.find((other) => other.spec === spec);
    if (source === undefined) return;
    source.reason = reason;
    source.told = state;
    if (state === 'failed') this.tellFailed(source);
    else if (source.hasFailed) this.tell('info', 'source_back', source, `${spec} delivers again: ${reason}`);
    else this.tell('info', 'source_ready', source, `${spec} is healthy: ${reason}`);
    source.hasFailed = state === 'failed';
    this.lookAgain();
  }

  private tellFailed(source: WatchedSource): void {
    const next = source.status.permanent
      ? 'it stays out until an operator enables it again (SIGHUP)'
      : 'trying again';
    this.tell('error', 'source_failed', source, `reading ${source.spec} failed: ${source.reason}; ${next}`);
  }

  /** Guests are given bytes of another source than before. */
  switched(to: string, from: string): void {
    const source = this.sources.find(({ spec }) => spec === to);
    if (source !== undefined)
      this.tell('info', 'source_switch', source, `${to} serves now in the place of ${from}`);
  }

  /** Looks for sources that have become slow, or are no longer; and goes on looking while that may change. */
  private look(): void {
    for (const source of this.sources) {
      const state = this.stateOf(source);
      if (state === 'slow' && source.told !== 'slow') {
        source.reason = `it has given nothing for ${SLOW_AFTER_MS / 1000} s`;
        this.tell('warn', 'source_slow', source, `${source.spec} is slow: ${source.reason}`);
      } else if (state === 'healthy' && source.told === 'slow') {
        source.reason = 'it gives bytes again';
        this.tell('info', 'source_back', source, `${source.spec} delivers again: it has new bytes`);
      }
      source.told = state;
    }
    if (this.sources.some(mayChange)) this.lookAgain();
    else for (const source of this.sources) this.lookWhenWanted(source);
  }

  private lookAgain(): void {
    if (this.timer !== undefined || this.stopped) return;
    this.timer = setTimeout(() => {
      this.timer = undefined;
      this.look();
    }, LOOK_EVERY_MS).unref();
  }

  private lookWhenWanted(source: WatchedSource): void {
    if (source.awaited) return;
    source.awaited = true;
    void whenWanted(source.queue).then(() => {
      source.awaited = false;
      this.lookAgain();
    });
  }

  private tell(level: 'error' | 'warn' | 'info', code: string, source: WatchedSource, message: string): void {
    const suppressed = this.throttle.pass(`${code} ${source.spec}`);
    if (suppressed === undefined) return;
    this.log(level, code, message, { source: source.spec, ...(suppressed > 0 && { suppressed }) });
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.timer);
  }
}
