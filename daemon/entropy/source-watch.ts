// The main thread's view of the sources: what each is fit for and why, and a log line for each change.
//
// States come by message from the thread that reads a source. That one has become slow nobody can tell but who looks from
// outside, since its reader may be blocked: this is done here, while somebody may be waiting for it.
import { MonotonicClock } from '../../shared-memory/monotonic-clock.js';
import type { SourceMessage } from '../data-plane-messages.js';
import { LogThrottle } from '../log-throttle.js';
import type { Log } from '../rng-device.js';
import { SLOW_AFTER_MS, type SourceState, type SourceStatus } from './source-status.js';

const LOOK_EVERY_MS = 500;
/** Lines of one kind about one source in 10 s. Ours. */
const LINES = 2;

/** One source as the operator sees it. */
export interface WatchedSource {
  readonly spec: string;
  readonly status: SourceStatus;
  /** Why it is in its state, as a sentence without a subject. */
  reason: string;
  /** As it was last told. */
  told: SourceState;
  hasFailed: boolean;
}

/** Keeps and logs the states of all sources. */
export class SourceWatch {
  readonly sources: readonly WatchedSource[];
  private readonly log: Log;
  private readonly throttle = new LogThrottle(LINES);
  private readonly clock = new MonotonicClock();
  private timer: NodeJS.Timeout | undefined;
  private hasGuests = false;

  constructor(sources: readonly { readonly spec: string; readonly status: SourceStatus }[], log: Log) {
    this.sources = sources.map(({ spec, status }) => ({
      spec,
      status,
      reason: 'it has not passed its start-up test yet',
      told: 'starting',
      hasFailed: false,
    }));
    this.log = log;
    this.look();
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
    this.look();
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

  /** Whether a guest is connected, which may be waiting for bytes. */
  watchFor(guests: boolean): void {
    this.hasGuests = guests;
    this.look();
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
    const steady = this.sources.every(({ told }) => told === 'healthy');
    if (this.hasGuests || !steady) this.timer ??= setInterval(() => this.look(), LOOK_EVERY_MS).unref();
    else this.stop();
  }

  private tell(level: 'error' | 'warn' | 'info', code: string, source: WatchedSource, message: string): void {
    const suppressed = this.throttle.pass(`${code} ${source.spec}`);
    if (suppressed === undefined) return;
    this.log(level, code, message, { source: source.spec, ...(suppressed > 0 && { suppressed }) });
  }

  stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
  }
}
