// The host-wide budget: at most so many bytes in any period over all devices, shared by deficit round robin.
//
// Data path: beside the device's own limiter. As long as the budget has bytes, devices take them as they come. When it
// has not, requests are held here, and what comes back is handed out in rounds: in each, every device that waits is given
// a quantum times its weight. Source: Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", 1996.
//
// What the paper leaves open is the guest with a single request outstanding (every Linux guest): it is not waiting at the
// moment after it was served, and a deep queue would take all that is there. Two things prevent that. A device whose queue
// runs empty stays in the round for a moment, its "think time", with what is left of its quantum; the next round begins no
// earlier. And while the budget is scarce, the last half of it is kept for those who come later: rounds that draw on it begin
// no faster than it yields what they hand out. Bytes that come back in one go are so spread over a period.
import type { Clock } from '../shared-memory/monotonic-clock.js';
import { LimiterMemory } from './limiter-memory.js';
import { type Limit, Limiter } from './limiter.js';
import type { Timer, Timers } from './timers.js';

/**
 * No request is given less at a time unless it is shorter, lest a budget that trickles makes a completion of each byte: what
 * a Linux guest asks for, or a part of a budget that is small, since what is less stays unused for a while.
 */
const LEAST_GRANT_BYTES = 64;
const LEAST_GRANT_PARTS = 16;
/** How long a guest that was just served stays in the round: some round trips of a guest that is not descheduled. Ours. */
const THINK_MS = 1;
/** How long a round waits for such guests in all, so that one that is slow but steady holds up nobody. Ours. */
const MAX_PAUSE_MS = 4;
/**
 * A quantum is what the budget yields in so long, which is the pause with the rounding of epoll_wait(2): one device that waits
 * is enough to use the budget up.
 */
const QUANTUM_MS = MAX_PAUSE_MS + 1;
/** Rounds may begin so much faster than the budget yields, and so much too early, so that nothing of it is left over. Ours. */
const PACE = 17 / 16;
const MAX_LATE_MS = QUANTUM_MS;

/** A ring whose request is held for the budget; resume() brings it to the loop for a pass. */
export interface BudgetWaiter {
  resume(): void;
}

/** What one device has of the budget. It belongs to the device and outlives its connections. */
export class BudgetShare {
  /** 1 to 1000; a change counts from the next round on. */
  weight: number;
  /** Rings that wait, in order; the budget's own. */
  readonly waiters: BudgetWaiter[] = [];
  /** True while the device takes part in a round; the bytes of this round that are left, and the end of its think time. */
  inRound = false;
  leftBytes = 0;
  thinkUntilMs = 0;
  /** What the held request needs at least. */
  neededBytes = 0;
  private readonly budget: SharedBudget;

  constructor(budget: SharedBudget, weight: number) {
    this.budget = budget;
    this.weight = weight;
  }

  /** True when the budget must be told how a pass has ended. */
  get contends(): boolean {
    return this.inRound || this.waiters.length > 0;
  }

  /** The budget of all devices; undefined: none. */
  get total(): Limit | undefined {
    return this.budget.current;
  }

  /** Bytes that this device may deliver now, up to `most`. */
  available(most = Number.MAX_SAFE_INTEGER): number {
    return this.budget.availableTo(this, most);
  }

  /** The least that a request for `wanted` bytes is given; with less the ring waits. */
  leastOf(wanted: number): number {
    return Math.min(wanted, this.budget.leastGrant);
  }

  /** Charges `bytes` that were delivered a moment ago. */
  charge(bytes: number): void {
    this.budget.charge(this, bytes);
  }

  /** Holds `ring`, whose next request needs `bytes` (as {@link leastOf} gives) or more. */
  wait(ring: BudgetWaiter, bytes: number): void {
    this.budget.wait(this, ring, bytes);
  }

  /** A pass of a device that {@link contends} has ended and `ring` does not wait here; `drained`: it has no request. */
  passed(ring: BudgetWaiter, drained: boolean): void {
    this.budget.passed(this, ring, drained);
  }

  /** Forgets a ring that stops: what it was to be given goes to the others at once. */
  forget(ring: BudgetWaiter): void {
    if (this.contends) this.budget.passed(this, ring, false);
  }
}

/** The budget of one data-plane thread. */
export class SharedBudget implements Timer {
  dueMs = Infinity;
  /** The least that a longer request is given at a time. */
  leastGrant = LEAST_GRANT_BYTES;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly window: Limiter;
  private readonly shares: BudgetShare[] = [];
  /** What a round gives to the least weight in it. */
  private quantumBytes = LEAST_GRANT_BYTES;
  /** Devices that wait, and devices in the round. */
  private waiting = 0;
  private members = 0;
  /** The device whose turn it is, and whether its ring was resumed; otherwise the budget has too little for it. */
  private turn: BudgetShare | undefined;
  private serving = false;
  /** Where the search for the next turn begins. */
  private cursor = 0;
  /** When the last think time ends, of all devices in the round. */
  private thinkUntilMs = 0;
  /** Until when the next round waits for guests that think; Infinity before it does. */
  private pauseUntilMs = Infinity;
  /** Until when the budget counts as scarce: one period after a request last had to wait for it. */
  private scarceUntilMs = -Infinity;
  /** When the next round may begin, and how that moves with each byte. */
  private nextRoundMs = -Infinity;
  private msPerByte = 0;
  /** With less than this left, rounds are paced. */
  private reserveBytes = 0;

  /** `total` undefined: no limit, until {@link change} sets one. `memory`: as for {@link Limiter}. */
  constructor(total: Limit | undefined, clock: Clock, timers: Timers, memory = new LimiterMemory()) {
    this.clock = clock;
    this.timers = timers;
    this.window = new Limiter(total, clock, memory);
    this.useQuantum(total);
  }

  /** The share of a new device, whose weight is 1 to 1000. */
  newShare(weight: number): BudgetShare {
    const share = new BudgetShare(this, weight);
    this.shares.push(share);
    return share;
  }

  /** Forgets a device whose rings have all stopped. */
  remove(share: BudgetShare): void {
    const at = this.shares.indexOf(share);
    if (at >= 0) this.shares.splice(at, 1);
  }

  get current(): Limit | undefined {
    return this.window.current;
  }

  /** Sets another budget, or none, from now on; what was delivered keeps counting. */
  change(total: Limit | undefined): void {
    this.window.change(total);
    this.useQuantum(total);
    if (this.waiting === 0 || this.serving) return;
    if (this.turn === undefined) this.nextTurn();
    else this.serveTurn(this.turn);
  }

  private useQuantum(total: Limit | undefined): void {
    this.scarceUntilMs = -Infinity;
    this.nextRoundMs = -Infinity;
    if (total === undefined) return;
    const { maxBytes, periodMs } = total;
    this.msPerByte = periodMs / (maxBytes * PACE);
    this.reserveBytes = maxBytes / 2;
    this.leastGrant = Math.max(1, Math.min(LEAST_GRANT_BYTES, Math.floor(maxBytes / LEAST_GRANT_PARTS)));
    const yieldBytes = Math.ceil(maxBytes * Math.min(1, QUANTUM_MS / periodMs));
    this.quantumBytes = Math.max(this.leastGrant, yieldBytes);
  }

  availableTo(share: BudgetShare, most: number): number {
    const free = this.window.available(most);
    if (this.window.current === undefined || !this.isContested(share)) return free;
    // Those who wait are served in turn, although a kick may bring them here earlier.
    const mayTake = share.inRound && (share === this.turn || share.waiters.length === 0);
    return mayTake ? Math.min(free, Math.floor(share.leftBytes)) : 0;
  }

  /** True when another device waits or may come back at any moment, or was here lately, by the clock as it was last read. */
  private isContested(share: BudgetShare): boolean {
    const nowMs = this.clock.nowMs[0] ?? 0;
    if (nowMs < this.scarceUntilMs) return true;
    if (this.waiting > (share.waiters.length > 0 ? 1 : 0)) return true;
    return this.members > (share.inRound ? 1 : 0) && nowMs < this.thinkUntilMs;
  }

  charge(share: BudgetShare, bytes: number): void {
    this.window.charge(bytes);
    if (!share.inRound) return;
    share.leftBytes = Math.max(0, share.leftBytes - bytes);
    this.nextRoundMs += bytes * this.msPerByte;
  }

  wait(share: BudgetShare, ring: BudgetWaiter, bytes: number): void {
    const before = share.waiters.indexOf(ring);
    if (before >= 0) removeAt(share.waiters, before);
    if (share.waiters.length === 0 && before < 0) this.waiting++;
    share.waiters.push(ring);
    share.neededBytes = bytes;
    if (this.turn === undefined || (this.turn === share && this.serving)) this.nextTurn();
  }

  passed(share: BudgetShare, ring: BudgetWaiter, drained: boolean): void {
    const at = share.waiters.indexOf(ring);
    if (at >= 0) {
      removeAt(share.waiters, at);
      if (share.waiters.length === 0) this.waiting--;
    }
    if (share.waiters.length === 0) {
      // One that is held for another reason gives its place up: it could not use it soon.
      if (drained && share.inRound) this.think(share);
      else this.leaveRound(share);
    }
    if (this.turn === undefined || this.turn === share) this.nextTurn();
  }

  private think(share: BudgetShare): void {
    const nowMs = this.now();
    if (this.waiting === 0 && nowMs >= this.scarceUntilMs && nowMs >= this.thinkUntilMs) {
      // It is the only one left, and there is enough again.
      for (const member of this.shares) this.leaveRound(member);
      return;
    }
    this.thinkUntilMs = nowMs + THINK_MS;
    share.thinkUntilMs = this.thinkUntilMs;
  }

  private joinRound(share: BudgetShare): void {
    if (!share.inRound) this.members++;
    share.inRound = true;
  }

  private leaveRound(share: BudgetShare): void {
    if (share.inRound) this.members--;
    share.inRound = false;
    share.leftBytes = 0;
  }

  /** Gives the turn to the next device that waits, in a new round when this one is over. */
  private nextTurn(): void {
    this.turn = undefined;
    this.serving = false;
    if (this.waiting === 0) {
      this.timers.disarm(this);
      return;
    }
    let next = this.findTurn();
    if (next === undefined) {
      if (this.pauses() || this.isTooEarly()) return;
      this.startRound();
      next = this.findTurn();
    }
    if (next !== undefined) this.serveTurn(next);
  }

  /** The first from the cursor on that waits and has enough left of its quantum. */
  private findTurn(): BudgetShare | undefined {
    const { length } = this.shares;
    for (let i = 0; i < length; i++) {
      const at = (this.cursor + i) % length;
      const share = this.shares[at];
      if (share === undefined || !share.inRound || share.waiters.length === 0) continue;
      if (share.leftBytes < Math.min(share.neededBytes, this.leastGrant)) continue;
      this.cursor = at;
      return share;
    }
    return undefined;
  }

  /** Resumes the ring whose turn it is, or waits until the budget has enough for it. */
  private serveTurn(share: BudgetShare): void {
    this.turn = share;
    const needed = Math.min(share.neededBytes, this.leastGrant);
    if (this.window.available() < needed) {
      this.armFor(this.window.releaseMs(needed));
      return;
    }
    this.timers.disarm(this);
    this.serving = true;
    share.waiters[0]?.resume();
  }

  /** True when the round goes on for guests that think; then a timer ends it. */
  private pauses(): boolean {
    let thinkUntilMs = 0;
    for (const share of this.shares) {
      if (share.inRound && share.waiters.length === 0)
        thinkUntilMs = Math.max(thinkUntilMs, share.thinkUntilMs);
    }
    if (thinkUntilMs === 0) return false;
    const nowMs = this.now();
    if (this.pauseUntilMs === Infinity) this.pauseUntilMs = nowMs + MAX_PAUSE_MS;
    const untilMs = Math.min(this.pauseUntilMs, thinkUntilMs);
    if (nowMs >= untilMs) return false;
    this.timers.armAt(this, untilMs);
    return true;
  }

  /** True when the last rounds have handed out more than the budget has yielded since; then a timer begins the next one. */
  private isTooEarly(): boolean {
    if (this.window.available() >= this.reserveBytes || this.now() >= this.nextRoundMs) return false;
    this.armFor(this.nextRoundMs);
    return true;
  }

  /** A request waits because the budget is short. */
  private armFor(ms: number): void {
    this.timers.armAt(this, ms);
    this.scarceUntilMs = this.now() + (this.window.current?.periodMs ?? 0);
  }

  /** A quantum for everyone who waits or thinks; whoever does not is out. Called when someone waits. */
  private startRound(): void {
    this.pauseUntilMs = Infinity;
    const nowMs = this.now();
    this.nextRoundMs = Math.min(nowMs, Math.max(this.nextRoundMs, nowMs - MAX_LATE_MS));
    let least = Infinity;
    for (const share of this.shares) {
      if (share.waiters.length > 0) this.joinRound(share);
      else if (nowMs >= share.thinkUntilMs) this.leaveRound(share);
      if (share.inRound) least = Math.min(least, share.weight);
    }
    for (const share of this.shares) {
      // What was too little for a request is kept, and what a guest was too slow to use is not.
      if (share.inRound)
        share.leftBytes =
          Math.min(share.leftBytes, this.leastGrant) + (this.quantumBytes * share.weight) / least;
    }
    // Whoever had the last turn of a round must not have the first of the next as well.
    this.cursor = (this.cursor + 1) % this.shares.length;
  }

  private now(): number {
    this.clock.read();
    return this.clock.nowMs[0] ?? 0;
  }

  onDue(): void {
    if (this.turn === undefined) this.nextTurn();
    else this.serveTurn(this.turn);
  }

  onCrash(error: unknown): void {
    throw error;
  }
}

/** Takes one out and keeps the order, without the array that splice() makes. */
function removeAt(waiters: BudgetWaiter[], at: number): void {
  waiters.copyWithin(at, at + 1);
  waiters.pop();
}
