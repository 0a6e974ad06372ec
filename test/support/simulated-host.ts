// A host with guests in simulated time: the real limiters, budget and timers, and rings that are only numbers.
//
// A simulated ring asks and charges in the order in which daemon/ring-service.ts does (which needs real memory, fds and a
// real clock); conformance tests show the real one. Time passes by passes of 5 us, think times, and timers with the
// rounding of epoll_wait(2).
import { type Limit, Limiter } from '../../daemon/limiter.js';
import { type BudgetShare, type BudgetWaiter, SharedBudget } from '../../daemon/shared-budget.js';
import { type Timer, Timers } from '../../daemon/timers.js';
import { Ledger } from './deliveries.js';
import { TestClock } from './test-clock.js';

const PASS_MS = 0.005;
/** As in daemon/ring-service.ts. */
const BYTES_PER_PASS = 65_536;

/** What a guest does: it keeps `depth` requests outstanding and makes the next one some time after an answer. */
export interface GuestPlan {
  readonly weight: number;
  readonly depth: number;
  readonly bytes: number;
  readonly thinkMs: number;
  readonly limit?: Limit;
}

/** Something that happens at a time: a guest makes a request, or what a test has planned. */
interface Event {
  readonly atMs: number;
  readonly run: () => void;
}

/** One device and its guest. */
export class SimulatedDevice implements BudgetWaiter, Timer {
  dueMs = Infinity;
  readonly share: BudgetShare;
  readonly limiter: Limiter;
  readonly plan: GuestPlan;
  readonly ledger = new Ledger();
  /** Longest time for which a request waited and nothing was delivered, and the smallest answer to one of 64 bytes or more. */
  longestWaitMs = 0;
  smallestAnswer = Infinity;
  queued = false;
  /** Times at which the waiting requests were made. */
  requests: number[] = [];
  private readonly host: SimulatedHost;
  private connected = true;
  /** Requests that a guest would have made on an earlier connection come to nothing. */
  private connection = 0;
  constructor(host: SimulatedHost, plan: GuestPlan) {
    this.host = host;
    this.plan = plan;
    this.share = host.budget.newShare(plan.weight);
    this.limiter = new Limiter(plan.limit, host.clock);
  }

  start(): void {
    for (let i = 0; i < this.plan.depth; i++) this.request();
  }

  /** The guest makes a request. */
  request(): void {
    if (!this.connected) return;
    this.requests.push(this.host.clock.now);
    this.resume();
  }

  /** The VMM goes: its ring is stopped. */
  disconnect(): void {
    this.connected = false;
    this.requests = [];
    this.connection++;
    this.host.timers.disarm(this);
    this.share.forget(this);
  }

  reconnect(): void {
    this.connected = true;
    this.start();
  }

  resume(): void {
    this.host.timers.disarm(this);
    if (this.queued || !this.connected) return;
    this.queued = true;
    this.host.ready.push(this);
  }

  onDue(): void {
    this.resume();
  }

  onCrash(error: unknown): void {
    throw error;
  }

  /** As RingService.servePass(). */
  pass(): void {
    this.queued = false;
    if (!this.connected) return;
    const quota = this.limiter.available(BYTES_PER_PASS);
    const budget = this.share.available(BYTES_PER_PASS);
    let batch = 0;
    let answered = 0;
    let outcome: 'drained' | 'more' | 'limit' | { needed: number } = 'drained';
    while (this.requests.length > answered) {
      if (batch === BYTES_PER_PASS) outcome = 'more';
      else if (batch >= quota) outcome = 'limit';
      if (outcome !== 'drained') break;
      const wanted = Math.min(this.plan.bytes, BYTES_PER_PASS - batch, quota - batch);
      const granted = Math.min(wanted, budget - batch);
      if (granted < wanted && granted < this.share.leastOf(wanted)) {
        outcome = { needed: this.share.leastOf(wanted) };
        break;
      }
      if (wanted >= 64) this.smallestAnswer = Math.min(this.smallestAnswer, granted);
      batch += granted;
      answered++;
    }
    this.deliver(batch, answered);
    if (typeof outcome === 'object') {
      this.share.wait(this, outcome.needed);
      return;
    }
    if (outcome === 'more') {
      this.resume();
      return;
    }
    if (this.share.contends) this.share.passed(this, outcome === 'drained');
    if (outcome === 'limit') this.host.timers.armAt(this, this.limiter.releaseMs(1));
  }

  private deliver(bytes: number, answered: number): void {
    this.host.clock.advance(PASS_MS);
    if (bytes === 0) return;
    const atMs = this.host.clock.now;
    this.limiter.charge(bytes);
    this.share.charge(bytes);
    this.host.charged(bytes);
    const waitedMs = atMs - Math.max(this.requests[0] ?? atMs, this.ledger.deliveries.at(-1)?.atMs ?? 0);
    this.longestWaitMs = Math.max(this.longestWaitMs, waitedMs);
    this.ledger.add(atMs, bytes);
    this.requests.splice(0, answered);
    this.host.onDelivery(this, atMs);
    for (let i = 0; i < answered; i++) {
      const { connection } = this;
      this.host.at(atMs + this.plan.thinkMs, () => {
        if (connection === this.connection) this.request();
      });
    }
  }
}

/** Devices, their budget, and time. */
export class SimulatedHost {
  readonly clock = new TestClock(5000.125);
  readonly timers = new Timers(this.clock);
  readonly budget: SharedBudget;
  readonly devices: SimulatedDevice[] = [];
  readonly ledger = new Ledger();
  readonly ready: SimulatedDevice[] = [];
  private events: Event[] = [];
  /** Called after each delivery. */
  onDelivery: (device: SimulatedDevice, nowMs: number) => void = () => undefined;

  constructor(total: Limit | undefined) {
    this.budget = new SharedBudget(total, this.clock, this.timers);
  }

  add(plan: GuestPlan): SimulatedDevice {
    const device = new SimulatedDevice(this, plan);
    this.devices.push(device);
    return device;
  }

  change(total: Limit | undefined): void {
    this.budget.change(total);
  }

  charged(bytes: number): void {
    this.ledger.add(this.clock.now, bytes);
  }

  at(atMs: number, run: () => void): void {
    let i = this.events.length;
    while (i > 0 && (this.events[i - 1]?.atMs ?? 0) < atMs) i--;
    this.events.splice(i, 0, { atMs, run });
  }

  get isWaiting(): boolean {
    return this.devices.some(({ share }) => share.waiters.length > 0);
  }

  /** Lets `ms` pass, or so many rounds of passes; `look` is called whenever there is nothing to do but wait. */
  run(ms: number, look: () => void = () => undefined, mostRounds = Infinity): void {
    const endMs = this.clock.now + ms;
    for (let rounds = 0; this.clock.now < endMs && rounds < mostRounds;) {
      this.timers.run();
      for (let next = this.events.at(-1); next !== undefined && next.atMs <= this.clock.now;) {
        this.events.pop();
        next.run();
        next = this.events.at(-1);
      }
      if (this.ready.length > 0) {
        rounds++;
        for (const device of this.ready.splice(0)) device.pass();
        continue;
      }
      look();
      const timeoutMs = this.timers.timeoutMs();
      const timerMs = timeoutMs < 0 ? Infinity : this.clock.now + Math.max(timeoutMs, 1e-3);
      const nextMs = Math.min(endMs, timerMs, this.events.at(-1)?.atMs ?? Infinity);
      this.clock.set(Math.max(nextMs, this.clock.now));
    }
  }
}
