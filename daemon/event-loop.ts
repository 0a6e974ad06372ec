// The data plane's loop: wait for events, dispatch them, serve the rings that have work, watch the busy ones.
//
// Data path: a kick arrives here and leads to one pass over its ring. The loop waits nowhere but in epoll_wait(2),
// so no peer, source or limit can delay another device for longer than one pass of each.
import { Epoll, EPOLLET, EPOLLIN } from '../shared-memory/epoll.js';
import { asFd, type Fd } from '../shared-memory/fd.js';
import { type Clock, MonotonicClock } from '../shared-memory/monotonic-clock.js';
import type { PeerCalls } from './peer-calls.js';
import { SAMPLE_EVERY } from './latency.js';
import { Timers } from './timers.js';

/** Something that has file descriptors watched. */
export interface Watcher {
  /** `events` is the mask of epoll(7). */
  onEvents(events: number): void;
  /** A bug of ours threw in onEvents(): end what this watcher serves, and nothing else. */
  onCrash(error: unknown): void;
}

/** A ring as the loop sees it. */
export interface Workable {
  /** Serves one bounded pass; true when more work is left and the ring wants another pass. */
  servePass(): boolean;
  /** True when the guest has made something available since the last pass. Only asked while the ring is hot. */
  hasWork(): boolean;
  /** The ring is no longer polled: ask for kicks again. True when work came in meanwhile. */
  cool(): boolean;
  onCrash(error: unknown): void;
}

/** A watched fd; needed to unwatch it. */
export interface Watch {
  readonly fd: Fd;
  readonly slot: number;
}

/** How long one spell of polling lasts before the other descriptors are looked at. Ours: a tenth of a wake-up. */
const SPELL_MS = 0.02;
/** Looks at the rings between two looks at the clock, which costs as much as 20 of them. */
const LOOKS_PER_CLOCK = 32;
/** Passes between two looks at the clock; each is bounded by its budget. Ours. */
const PASSES_PER_CLOCK = 4;

/** Rings started between two turns of the thread's own event loop; each makes three views. Ours. */
const VIEWS_PER_TURN = 256;

/** Runs one worker's devices. */
export class EventLoop {
  readonly clock: Clock = new MonotonicClock();
  readonly timers = new Timers(this.clock);
  /** How guests and front-ends are signalled. */
  readonly calls: PeerCalls;
  private readonly epoll = new Epoll();
  private readonly watchers: (Watcher | undefined)[] = [];
  private readonly generations: number[] = [];
  private readonly freeSlots: number[] = [];
  private ready: Workable[] = [];
  private serving: Workable[] = [];
  private readonly hot: Workable[] = [];
  /** A request was served since the clock was last looked at, and the polling time begins anew. */
  private heated = false;
  private hotUntilMs = 0;
  private pauseRequested = false;
  /** Rounds until one is timed, and when that one woke up; see latency.ts. */
  private roundsToSample = SAMPLE_EVERY;
  private wokeMs = 0;
  /** True while the round that runs is timed. */
  sampling = false;
  private sampled = false;
  private viewsMade = 0;
  private readonly busyPollMs: number;
  private readonly betweenRequests: () => void;

  /** `busyPollUs`: how long a ring is watched after its last request; `betweenRequests` runs after each round. */
  constructor(busyPollUs: number, calls: PeerCalls, betweenRequests: () => void) {
    this.busyPollMs = busyPollUs / 1000;
    this.calls = calls;
    this.betweenRequests = betweenRequests;
  }

  /** True when rings are to be watched after a request instead of asking for a kick. */
  get polls(): boolean {
    return this.busyPollMs > 0;
  }

  /** True when another ring has its turn after the one that is served now. */
  get othersWait(): boolean {
    return this.serving.length > 0 || this.ready.length > 0;
  }

  /** Watches `fd` (borrowed); a negated error number when it cannot be watched. */
  watch(fd: Fd, events: number, watcher: Watcher): Watch | number {
    const slot = this.freeSlots.pop() ?? this.watchers.length;
    // 32 bits, as epoll gives it back.
    const generation = ((this.generations[slot] ?? 0) + 1) | 0;
    this.generations[slot] = generation;
    this.watchers[slot] = watcher;
    const failed = this.epoll.add(fd, events, slot, generation);
    if (failed >= 0) return { fd, slot };
    this.release(slot);
    return failed;
  }

  /** Changes the events that are watched. */
  rewatch(watch: Watch, events: number): void {
    this.epoll.modify(watch.fd, events, watch.slot, this.generations[watch.slot] ?? 0);
  }

  /** Stops watching, before the owner closes the fd. Events of the current round for it are dropped. */
  unwatch(watch: Watch): void {
    this.epoll.remove(watch.fd);
    this.release(watch.slot);
  }

  private release(slot: number): void {
    this.watchers[slot] = undefined;
    this.freeSlots.push(slot);
  }

  /** Queues a ring for a pass in this round. The caller sees to it that a ring is queued once. */
  enqueue(work: Workable): void {
    this.ready.push(work);
  }

  /** Watches a ring without waiting for its kicks, for the polling time from about now on. */
  heat(work: Workable): void {
    this.heated = true;
    if (!this.hot.includes(work)) this.hot.push(work);
  }

  /** Forgets a ring that stops. */
  forget(work: Workable): void {
    for (const list of [this.ready, this.serving, this.hot]) {
      for (let at = list.indexOf(work); at >= 0; at = list.indexOf(work)) list.splice(at, 1);
    }
  }

  /**
   * Counts a ring's views that were dropped or will be: their finalizers run in the thread's own event loop, so that has
   * to turn now and then, also while nobody disconnects.
   */
  countViews(): void {
    this.viewsMade++;
    if (this.viewsMade < VIEWS_PER_TURN) return;
    this.viewsMade = 0;
    this.pause();
  }

  /** Makes run() return after the current round: to stop, or to let the thread's own event loop turn. */
  pause(): void {
    this.pauseRequested = true;
  }

  /** Runs until pause(). */
  run(): void {
    this.pauseRequested = false;
    while (!this.shallPause()) {
      const busy = this.ready.length > 0 || this.hot.length > 0;
      const events = this.epoll.wait(busy ? 0 : this.timers.timeoutMs());
      this.beginRound();
      for (let i = 0; i < events; i++) this.dispatch(i);
      this.timers.run();
      this.serveReady();
      if (this.hot.length > 0) this.pollHot();
      this.betweenRequests();
    }
  }

  private shallPause(): boolean {
    return this.pauseRequested;
  }

  private beginRound(): void {
    if (this.sampled) {
      this.sampling = false;
      this.sampled = false;
      this.roundsToSample = SAMPLE_EVERY;
    }
    if (this.roundsToSample > 0) {
      this.roundsToSample--;
      return;
    }
    // Timed from round to round until one serves something.
    this.sampling = true;
    this.noteWakeUp();
  }

  private noteWakeUp(): void {
    this.clock.read();
    this.wokeMs = this.clock.nowMs[0] ?? 0;
  }

  /** The time in ms since the wake-up of this round, which is timed. */
  sampleMs(): number {
    this.sampled = true;
    this.clock.read();
    return (this.clock.nowMs[0] ?? 0) - this.wokeMs;
  }

  private dispatch(i: number): void {
    const slot = this.epoll.eventToken(i);
    const watcher = this.watchers[slot];
    // A watcher that an earlier event of this round removed, or whose slot has a new owner, gets nothing.
    if (watcher === undefined || this.generations[slot] !== this.epoll.eventGeneration(i)) return;
    try {
      watcher.onEvents(this.epoll.eventMask(i));
    } catch (error) {
      watcher.onCrash(error);
    }
  }

  private serveReady(): void {
    const round = this.ready;
    this.ready = this.serving;
    this.serving = round;
    // Who came first is served first, also when there is not enough for all.
    if (round.length > 1) round.reverse();
    for (let work = round.pop(); work !== undefined; work = round.pop()) this.serve(work);
  }

  private serve(work: Workable): void {
    try {
      if (work.servePass()) this.ready.push(work);
    } catch (error) {
      work.onCrash(error);
    }
  }

  /** Watches the hot rings for one spell. */
  private pollHot(): void {
    let now = this.lookAtClock();
    const spellEnd = now + SPELL_MS;
    while (now < spellEnd && now < this.hotUntilMs && this.ready.length === 0) {
      this.lookAtHot();
      now = this.lookAtClock();
    }
    if (now >= this.hotUntilMs) this.coolAll();
  }

  /** Looks at every hot ring a number of times; leaves when a few passes were served, or one needs another pass. */
  private lookAtHot(): void {
    let passes = 0;
    for (let look = 0; look < LOOKS_PER_CLOCK; look++) {
      for (let i = 0; i < this.hot.length; i++) {
        const work = this.hot[i];
        if (work?.hasWork() !== true) continue;
        // Nothing woke the loop: the request's time begins as it is seen.
        if (this.sampling) this.noteWakeUp();
        this.serve(work);
        passes++;
        if (passes >= PASSES_PER_CLOCK || this.ready.length > 0) return;
      }
    }
  }

  /** The time in ms; polling goes on from here when a request was served since the last look. */
  private lookAtClock(): number {
    this.clock.read();
    const now = this.clock.nowMs[0] ?? 0;
    if (this.heated) this.hotUntilMs = now + this.busyPollMs;
    this.heated = false;
    return now;
  }

  private coolAll(): void {
    for (let work = this.hot.pop(); work !== undefined; work = this.hot.pop()) {
      if (work.cool()) this.ready.push(work);
    }
  }

  close(): void {
    this.epoll.close();
  }
}

/** An eventfd that another thread writes to wake the loop; `onWake` runs in the loop. */
export function watchWakeUp(loop: EventLoop, wakeFd: number, onWake: () => void): void {
  loop.watch(asFd(wakeFd), EPOLLIN | EPOLLET, {
    onEvents: onWake,
    onCrash: (error) => {
      throw error;
    },
  });
}
