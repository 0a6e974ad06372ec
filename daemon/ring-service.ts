// Serving a running ring: virtqueue -> limiter and budget -> entropy -> guest memory -> used ring -> signal.
//
// This is the data path. Nothing here waits, logs or allocates for a request. A request that cannot be served now
// is held: it stays in the ring, and a timer or the source brings the ring back here.
import { Errno, errnoName } from '../shared-memory/errno.js';
import { Peek, type SplitVirtqueue } from '../shared-memory/split-virtqueue.js';
import { Fault } from '../protocol/fault.js';
import { type SeatCounters, Hold } from './counters.js';
import type { EntropyPool } from './entropy/pool.js';
import type { Starvation, Starved } from './entropy/starvation.js';
import type { EventLoop, Workable } from './event-loop.js';
import type { LimitTurns, LimitWaiter } from './limit-turns.js';
import type { Limiter } from './limiter.js';
import { signalBlocked } from './peer-calls.js';
import type { PeerDisposal } from './peer-disposal.js';
import type { BudgetShare, BudgetWaiter } from './shared-budget.js';
import type { Timer } from './timers.js';
import type { Fd } from '../shared-memory/fd.js';

/** One pass serves at most so much, then the other rings have their turn. Ours; see ARCHITECTURE.md, "Ring rules". */
const CHAINS_PER_PASS = 64;
const BYTES_PER_PASS = 65536;
const DESCRIPTORS_PER_PASS = 1024;
/** A request that was given a part waits so long for the rest. Ours: some hundred times what a busy source takes. */
const REST_WAIT_MS = 50;
/** Looks for more work within one pass, each after a signal; then the other descriptors are looked at. */
const LOOKS_PER_PASS = 16;

/** What all rings of one thread, of one device, and of one seat, share. */
export interface ServiceContext {
  readonly loop: EventLoop;
  /** Changes when the operator chooses other sources. */
  pool: EntropyPool;
  readonly starvation: Starvation;
  readonly limiter: Limiter;
  readonly turns: LimitTurns;
  readonly share: BudgetShare;
  readonly counters: SeatCounters;
  /** The seat's number among the data plane's calls, and where its front-end's fds and mappings go. */
  readonly owner: number;
  readonly disposal: PeerDisposal;
  /** True while the operator wants requests to be held. */
  paused: boolean;
}

/** Why a pass ended. */
const Outcome = {
  Drained: 0,
  More: 1,
  HeldForLimit: 2,
  HeldForBudget: 3,
  HeldForEntropy: 4,
  HeldForPause: 5,
  Faulted: 6,
} as const;
type Outcome = (typeof Outcome)[keyof typeof Outcome];

/** Serves one started and enabled ring until it is stopped. Borrows the call fd. */
export class RingService implements Workable, Starved, LimitWaiter, BudgetWaiter, Timer {
  dueMs = Infinity;
  /** Requests completed since the ring started. */
  served = 0;
  readonly queue: SplitVirtqueue;
  private readonly context: ServiceContext;
  private readonly onFault: (fault: Fault) => void;
  private readonly onBug: (error: unknown) => void;
  private callFd: Fd | undefined;
  /** The seat that the call fd is signalled for, or 0: it is a pipe, and signalled aside. Kept here, where it is cached. */
  private callOwner = 0;
  private queued = false;
  private held = false;
  /** Held until a source has bytes. */
  private starved = false;
  /** Why requests are held, as the counters know it. */
  private hold: Hold = Hold.None;
  private stopped = false;
  /** True while the ring is polled and the driver was asked not to kick. */
  private hot = false;
  /** What is left of this pass's budget. */
  private chainsLeft = 0;
  private bytesLeft = 0;
  private descriptorsLeft = 0;
  /** What was completed and not yet published. */
  private batchBytes = 0;
  private batchRequests = 0;
  /** What the request at the head has been given and not been completed with, and until when the rest is waited for. */
  private begunBytes = 0;
  private restDueMs = 0;
  /** What the request that is held for the budget needs at least. */
  private neededBytes = 0;

  constructor(
    queue: SplitVirtqueue,
    context: ServiceContext,
    on: { readonly fault: (fault: Fault) => void; readonly bug: (error: unknown) => void },
  ) {
    this.queue = queue;
    this.context = context;
    this.onFault = on.fault;
    this.onBug = on.bug;
  }

  /** Sets the fd that is signalled, a pipe `aside`; the caller keeps it open until it sets another or stops the service. */
  useCall(fd: Fd | undefined, aside: boolean): void {
    this.callFd = fd;
    this.callOwner = aside ? 0 : this.context.owner;
  }

  /** Brings the ring to the loop for a pass. */
  resume(): void {
    if (this.held) this.leaveRows();
    this.held = false;
    this.starved = false;
    if (this.queued) return;
    this.queued = true;
    this.context.loop.enqueue(this);
  }

  private leaveRows(): void {
    this.context.loop.timers.disarm(this);
    this.context.turns.leave(this);
  }

  /** The guest has made something available: no news to a ring that waits for bytes or quota, and no way past the others. */
  kicked(): void {
    if (!this.starved && this.hold !== Hold.Limit) this.resume();
  }

  onDue(): void {
    this.resume();
  }

  hasWork(): boolean {
    return !this.held && !this.queued && this.queue.hasWork();
  }

  cool(): boolean {
    this.hot = false;
    if (this.queued || !this.queue.enableKicks() || this.held) return false;
    this.queued = true;
    return true;
  }

  private isStopped(): boolean {
    return this.stopped;
  }

  /** Forgets every promise to come back; nothing is written or signalled afterwards. */
  stop(): void {
    this.context.loop.forget(this);
    this.leaveRows();
    this.context.turns.passed(this);
    this.context.starvation.forget(this);
    this.context.share.forget(this);
    this.callFd = undefined;
    this.stopped = true;
    this.noteHold(Hold.None);
  }

  onCrash(error: unknown): void {
    this.onBug(error);
  }

  servePass(): boolean {
    this.queued = false;
    if (this.stopped) return false;
    this.chainsLeft = CHAINS_PER_PASS;
    this.bytesLeft = BYTES_PER_PASS;
    this.descriptorsLeft = DESCRIPTORS_PER_PASS;
    const { loop, counters } = this.context;
    for (let looks = LOOKS_PER_PASS; ; looks--) {
      const outcome = this.serveBatch();
      // What a later look finds came after the wake-up.
      if (loop.sampling && looks === LOOKS_PER_PASS && this.batchRequests > 0)
        counters.sampled(loop.sampleMs());
      if (outcome !== Outcome.Drained || this.isStopped()) return this.endPass(outcome);
      // The signal may have woken the guest on this very CPU, and its next request may be there already: what this
      // look finds saves a whole wait.
      if (!this.awaitWork())
        return this.endPass(this.queue.hasVanished() ? Outcome.Faulted : Outcome.Drained);
      if (looks === 0) return this.endPass(Outcome.More);
    }
  }

  /** Serves what is available, publishes it all at once and tells the driver once. */
  private serveBatch(): Outcome {
    const { limiter, share, counters } = this.context;
    this.batchBytes = 0;
    this.batchRequests = 0;
    const outcome = this.serveRequests();
    this.queue.publish();
    if (this.batchBytes > 0) {
      counters.served(this.batchRequests, this.batchBytes);
      this.served += this.batchRequests;
      // Charged when it is visible to the guest and not before, so that no window of a period holds too much.
      limiter.charge(this.batchBytes);
      share.charge(this.batchBytes);
    }
    if (!this.queue.hasVanished() && this.queue.needsSignal()) {
      // With others to serve, their guests are woken first and no look comes at once.
      if (!this.context.loop.othersWait) this.queue.spareKicks();
      this.signalCall();
    }
    return outcome;
  }

  /** Serves until the ring is empty, the pass's budget is spent or the request must be held. */
  private serveRequests(): Outcome {
    const { limiter, turns, share, counters, paused } = this.context;
    if (paused) return this.queue.hasWork() ? Outcome.HeldForPause : Outcome.Drained;
    const quota = turns.mayTake(this) ? limiter.available(BYTES_PER_PASS) : 0;
    const budget = share.available(BYTES_PER_PASS);
    while (this.queue.hasWork()) {
      if (this.bytesLeft === 0 || this.chainsLeft === 0 || this.descriptorsLeft <= 0) return Outcome.More;
      if (this.batchBytes >= quota && this.begunBytes === 0) return Outcome.HeldForLimit;
      const room = this.queue.peek();
      if (room === Peek.Corrupt || room === Peek.Vanished) return Outcome.Faulted;
      this.chainsLeft--;
      this.descriptorsLeft -= this.queue.walked;
      if (room === Peek.Malformed) {
        counters.malformedChain();
        this.queue.complete(0);
        this.begunBytes = 0;
        continue;
      }
      const wanted = Math.min(room - this.begunBytes, this.bytesLeft, quota - this.batchBytes);
      const granted = Math.min(wanted, budget - this.batchBytes);
      if (granted < wanted && granted < share.leastOf(wanted) && this.begunBytes === 0) {
        this.neededBytes = share.leastOf(wanted);
        return Outcome.HeldForBudget;
      }
      const written = this.deliver(granted);
      if (written < 0) return Outcome.Faulted;
      this.bytesLeft -= written;
      if (written < granted && this.waitsForRest(written)) return Outcome.HeldForEntropy;
      // The guest may have made a buffer shorter that was begun.
      this.queue.complete(Math.min(this.begunBytes + written, room));
      this.begunBytes = 0;
      this.batchRequests++;
    }
    return Outcome.Drained;
  }

  /**
   * The sources have run dry within a request that was given `written` more bytes: true while it is held for the rest. A
   * source that is merely busy has them soon; a slow one must not keep what is there from the guest. Under a limit nothing
   * is kept back: what is charged now and visible later would be too much for some window of the period.
   */
  private waitsForRest(written: number): boolean {
    const { limiter, share } = this.context;
    if (written > 0 && (limiter.current ?? share.total) !== undefined) return false;
    const { clock } = this.context.loop;
    clock.read();
    const nowMs = clock.nowMs[0] ?? 0;
    if (this.begunBytes === 0) this.restDueMs = nowMs + REST_WAIT_MS;
    if (this.begunBytes > 0 && nowMs >= this.restDueMs) return false;
    this.begunBytes += written;
    return true;
  }

  /**
   * Copies up to `wanted` bytes from the pool into the peeked request, behind those that it was begun with: the bytes
   * written, fewer when the sources run dry, or a negative number when guest memory has vanished. What was offered to a
   * guest is never used again.
   */
  private deliver(wanted: number): number {
    const { pool } = this.context;
    let written = 0;
    while (written < wanted) {
      const length = Math.min(pool.ready(), wanted - written);
      if (length === 0) break;
      const failed = this.queue.fill(this.begunBytes + written, pool.memory, pool.offset, length);
      pool.take(length);
      // Counted, and charged to the limit, also when the copy failed: part of it may have reached the guest.
      this.batchBytes += length;
      if (failed !== 0) return failed;
      written += length;
    }
    return written;
  }

  /**
   * The ring is empty: asks the driver for a kick, or, with polling, watches a ring that was just served for a while
   * without kicks. True when work has come in meanwhile.
   */
  private awaitWork(): boolean {
    const { loop } = this.context;
    if (loop.polls && this.batchRequests > 0) {
      this.hot = true;
      loop.heat(this);
    }
    if (!this.hot) return this.queue.enableKicks();
    this.queue.suppressKicks();
    return this.queue.hasWork();
  }

  private endPass(outcome: Outcome): boolean {
    if (this.stopped) return false;
    const { loop, turns, share, starvation } = this.context;
    const hold = holdOf(outcome);
    this.held = hold !== Hold.None;
    // The counters take the time, which costs a look at the clock.
    if (this.held || this.hold !== Hold.None) this.noteHold(hold);
    if (outcome !== Outcome.HeldForLimit) turns.passed(this);
    if (share.contends && outcome !== Outcome.HeldForBudget && outcome !== Outcome.More)
      share.passed(this, outcome === Outcome.Drained);
    switch (outcome) {
      case Outcome.HeldForLimit:
        turns.wait(this);
        return false;
      case Outcome.HeldForBudget:
        share.wait(this, this.neededBytes);
        return false;
      case Outcome.HeldForEntropy:
        this.starved = true;
        if (this.begunBytes > 0) loop.timers.armAt(this, this.restDueMs);
        starvation.wait(this, this.claim());
        return false;
      case Outcome.HeldForPause:
        return false;
      case Outcome.More:
        this.queued = true;
        return true;
      case Outcome.Faulted:
        this.onFault(this.fault());
        return false;
      case Outcome.Drained:
        return false;
    }
  }

  private claim(): 'begun' | 'unserved' | 'served' {
    if (this.begunBytes > 0) return 'begun';
    return this.bytesLeft < BYTES_PER_PASS ? 'served' : 'unserved';
  }

  /** Tells the counters why requests are held from now on. */
  private noteHold(hold: Hold): void {
    const { loop, counters } = this.context;
    this.hold = hold;
    loop.clock.read();
    const nowMs = loop.clock.nowMs[0] ?? 0;
    if (hold === Hold.None) counters.released(nowMs);
    else counters.held(hold, nowMs);
  }

  private fault(): Fault {
    const reason = this.queue.corruptionReason;
    return reason === ''
      ? new Fault('ring', 'memory_vanished', 'guest memory has vanished: the VMM has shrunk its file')
      : new Fault('ring', 'ring_corrupt', `the guest's ring is corrupt: ${reason}`);
  }

  /** Tells the driver; a full pipe or a counter at its maximum has told it already. */
  private signalCall(): void {
    if (this.callFd === undefined) return;
    const { loop } = this.context;
    const result =
      this.callOwner === 0
        ? this.context.disposal.signalAside(this.callFd)
        : loop.calls.signal(this.callFd, this.callOwner);
    if (result === -Errno.EINTR) {
      this.onFault(signalBlocked());
    } else if (result < 0 && result !== -Errno.EAGAIN) {
      this.onFault(new Fault('ring', 'call_failed', `signalling the guest failed: ${errnoName(result)}`));
    }
  }
}

function holdOf(outcome: Outcome): Hold {
  switch (outcome) {
    case Outcome.HeldForLimit:
      return Hold.Limit;
    case Outcome.HeldForBudget:
      return Hold.Budget;
    case Outcome.HeldForEntropy:
      return Hold.Entropy;
    case Outcome.HeldForPause:
      return Hold.Pause;
    default:
      return Hold.None;
  }
}
