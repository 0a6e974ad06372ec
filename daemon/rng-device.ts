// One entropy device: a socket, seats for the front-ends that connect to it, and what outlives connections (limit, counts).
//
// A device has one seat, unless the operator wants more. A seat is ready for the next front-end as soon as the last has gone.
import { errnoName, Errno } from '../shared-memory/errno.js';
import { EPOLLIN } from '../shared-memory/epoll.js';
import { asFd, closeFd, type Fd } from '../shared-memory/fd.js';
import { acceptFrom, peerCredentials } from '../shared-memory/unix-socket.js';
import { Fault } from '../protocol/fault.js';
import { SeatCounters } from './counters.js';
import type { DataPlaneMessage } from './data-plane-messages.js';
import type { MemoryOptions } from './device-state.js';
import type { Pools, SourceChoice } from './entropy/pools.js';
import type { Starvation } from './entropy/starvation.js';
import type { EventLoop, Watch, Watcher } from './event-loop.js';
import type { Keeping } from './handover/front-end-journal.js';
import type { Take } from './handover/frontend-record.js';
import type { LeftToDevice } from './handover/inherited.js';
import { type KeptNumber, recordName } from './handover/kept-names.js';
import { Ledger, MAX_SEATS } from './ledger.js';
import { LimitTurns } from './limit-turns.js';
import { type Limit, Limiter } from './limiter.js';
import { LogThrottle } from './log-throttle.js';
import { Seat, type SharedService } from './seat.js';
import type { SharedBudget } from './shared-budget.js';
import type { Timer } from './timers.js';

/** Connections accepted in one round. Ours. */
const ACCEPTS_PER_ROUND = 4;
/** Without a free descriptor, accepting pauses for this long; the devices that are connected go on. */
const ACCEPT_PAUSE_MS = 100;
/** Once a front-end has held up the data plane the device accepts none for so long, longer each time. Ours. */
const HOSTILE_PAUSES_MS = [10_000, 60_000, 600_000, 3_600_000] as const;
/** After so long without another time, the pauses begin anew. Ours. */
const FORGIVEN_AFTER_MS = 86_400_000;
/** Lines of one kind for one device in 10 s, however many connections make them. Ours. */
const DEVICE_LOG_LINES = 20;

/** A device as the operator set it up. */
export interface DeviceOptions {
  readonly name: string;
  /** The listening socket, or a connected one (`--fd`), owned by the device from here on. */
  readonly fd: number;
  readonly connected: boolean;
  /** Undefined: no limit. */
  readonly limit: Limit | undefined;
  /** The device's part of the host's budget against the others', 1 to 1000. */
  readonly weight: number;
  readonly memory: MemoryOptions;
  readonly entropy: SourceChoice;
  /** Requests are held from the start. */
  readonly paused: boolean;
  /** Front-ends that it serves at a time, 1 to MAX_SEATS. */
  readonly seats: number;
  /** Where its ledger lies, which the main thread owns; see ledger.ts. */
  readonly ledger: number;
}

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';
/** A log line: level, stable code, sentence, and fields for a machine. */
export type Log = (
  level: LogLevel,
  code: string,
  message: string,
  fields?: Readonly<Record<string, unknown>>,
) => void;

/** What all devices of one thread share, and how a device speaks to the rest of the daemon. */
export interface DeviceContext {
  readonly loop: EventLoop;
  readonly pools: Pools;
  readonly starvation: Starvation;
  /** What all devices together may deliver. */
  readonly budget: SharedBudget;
  readonly log: Log;
  /** Where front-ends are kept for the next process; undefined: nothing is. */
  readonly keeping: Keeping | undefined;
  /** To the main thread. */
  readonly post: (message: DataPlaneMessage) => void;
  /** A front-end has come or gone. Views that it leaves wait for the garbage collector in the thread's own loop. */
  readonly connected: (change: 1 | -1) => void;
  /** The front-end of an inherited connection has gone: there is nothing left for this device to do. */
  readonly lastConnectionEnded: () => void;
}

/** Accepts the front-ends of one socket, and seats them. */
export class RngDevice implements Watcher, Timer {
  dueMs = Infinity;
  readonly name: string;
  private readonly options: DeviceOptions;
  private readonly context: DeviceContext;
  /** What outlives connections, limiter and share among it: nobody gets a new quota by coming back. */
  private readonly service: SharedService;
  private readonly ledger: Ledger;
  private readonly throttle = new LogThrottle(DEVICE_LOG_LINES);
  private readonly seats: Seat[] = [];
  private watch: Watch | undefined;
  private closed = false;
  /** How often front-ends have held up the data plane, and when last, in ms of the clock. */
  private offences = 0;
  private lastOffenceMs = 0;

  constructor(options: DeviceOptions, context: DeviceContext) {
    this.name = options.name;
    this.options = options;
    this.context = context;
    this.ledger = new Ledger(options.ledger);
    const { loop, starvation } = context;
    const limiter = new Limiter(options.limit, loop.clock, this.ledger.limiter);
    this.service = {
      loop,
      pool: context.pools.choose(options.entropy),
      starvation,
      limiter,
      turns: new LimitTurns(loop.timers, limiter),
      share: context.budget.newShare(options.weight),
      paused: options.paused,
    };
    this.addSeat();
  }

  private addSeat(): Seat {
    const { service, options, context } = this;
    const counters = this.ledger.seat(this.seats.length);
    const seat = new Seat(
      {
        service,
        memory: options.memory,
        counters,
        post: context.post,
        device: this.name,
        keeping: context.keeping,
      },
      {
        log: (level, code, message, fields) => this.log(level, code, message, fields),
        connected: (change) => this.connected(change),
        offended: () => this.keepOut(),
        ready: () => this.acceptAgain(),
      },
    );
    this.seats.push(seat);
    return seat;
  }

  /** Sets another limit, or none, from now on; a request that is held for the old one is looked at again. */
  setLimit(limit: Limit | undefined): void {
    this.service.limiter.change(limit);
    for (const seat of this.seats) seat.lookAgain();
  }

  /** Sets the device's part of the host's budget against the others', 1 to 1000, from the next round on. */
  setWeight(weight: number): void {
    this.service.share.weight = weight;
  }

  /** Draws from other sources from the next request on; all of them are known to the pools. */
  setSources(choice: SourceChoice): void {
    const before = this.service.pool;
    const pool = this.context.pools.choose(choice);
    this.service.pool = pool;
    for (const seat of this.seats) seat.use({ pool });
    this.context.pools.release(before);
  }

  /** Holds requests, or serves them again; the connections stay. */
  setPaused(paused: boolean): void {
    this.service.paused = paused;
    for (const seat of this.seats) seat.use({ paused });
  }

  /** Starts to accept, or to serve the inherited connection. */
  open(): void {
    const fd = asFd(this.options.fd);
    if (this.options.connected) {
      this.seats[0]?.serve(fd);
      return;
    }
    const watch = this.context.loop.watch(fd, EPOLLIN, this);
    if (typeof watch === 'number')
      throw new Error(`watching the socket of ${this.name}: ${errnoName(watch)}`);
    this.watch = watch;
  }

  /** Writes its front-ends down, where they are not kept as they come. */
  record(keeping: Keeping): void {
    for (const seat of this.seats) seat.record(keeping);
  }

  /** Goes on with front-ends of a process before; `take` gives fds of the open files that it has kept. */
  goOn({ frontEnds, accepted }: LeftToDevice, take: Take): void {
    for (const frontEnd of frontEnds) {
      const seat = this.freeSeat();
      if (seat !== undefined) {
        seat.goOn(frontEnd, take);
        continue;
      }
      const message = `expected at most ${this.options.seats} front-ends, got one more: it is disconnected`;
      this.log('warn', 'takeover_refused', message);
      this.context.keeping?.store.forget(recordName(frontEnd.number));
      closeFd(frontEnd.recordFd);
    }
    for (const number of accepted) this.acceptAnew(number, take);
    this.clearSeats();
  }

  private acceptAnew(number: KeptNumber, take: Take): void {
    try {
      this.accept(take(number));
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      this.log('warn', 'accept_failed', `a front-end was closed: ${error.message}`);
    }
  }

  /** Counters of front-ends that have not come over: nobody is connected there. */
  private clearSeats(): void {
    const { clock } = this.context.loop;
    clock.read();
    for (let number = 0; number < MAX_SEATS; number++) {
      const counters = new SeatCounters(this.ledger.seat(number));
      if (!counters.isConnected || this.seats[number]?.isFree === false) continue;
      counters.released(clock.nowMs[0] ?? 0);
      counters.disconnected();
    }
  }

  onEvents(): void {
    for (let i = 0; i < ACCEPTS_PER_ROUND; i++) {
      const full = this.fullSeats();
      if (full.length > 0) {
        this.stopAccepting();
        // Each of them, even if it has room by now: whoever waits for none would wait for ever.
        for (const seat of full) seat.awaitRoom();
        return;
      }
      const fd = acceptFrom(asFd(this.options.fd));
      if (fd === -Errno.EAGAIN) return;
      if (fd === -Errno.ECONNABORTED || fd === -Errno.EINTR) continue;
      if (fd < 0) {
        this.log(
          'warn',
          'accept_failed',
          `accepting failed: ${errnoName(fd)}; trying again (raise LimitNOFILE)`,
        );
        this.pauseAccepting(ACCEPT_PAUSE_MS);
        return;
      }
      this.accept(asFd(fd));
    }
  }

  /** Seats to wait for, while a front-end could neither be seated nor turned away without too much waiting to be let go. */
  private fullSeats(): readonly Seat[] {
    if (this.seats.length < this.options.seats) return [];
    const free = this.seats.filter((seat) => seat.isFree);
    const wanted = free.length > 0 ? free : this.seats;
    return wanted.every((seat) => seat.isFull) ? wanted : [];
  }

  private accept(fd: Fd): void {
    const seat = this.freeSeat();
    if (seat !== undefined) {
      seat.serve(fd);
      return;
    }
    const { pid } = peerCredentials(fd);
    (this.seats.find(({ isFull }) => !isFull) ?? this.seats[0])?.turnAway(fd);
    const most = this.options.seats;
    const served = most === 1 ? 'one' : String(most);
    this.log(
      'warn',
      'busy',
      `${most === 1 ? 'a second' : 'one more'} front-end (pid ${pid}) was closed: this device serves ${served} at a time`,
    );
  }

  private freeSeat(): Seat | undefined {
    const free = this.seats.find((seat) => seat.isFree && !seat.isFull);
    if (free !== undefined) return free;
    if (this.seats.length < this.options.seats) return this.addSeat();
    return this.seats.find((seat) => seat.endIfGone());
  }

  private pauseAccepting(pauseMs: number): void {
    this.stopAccepting();
    this.context.loop.timers.armIn(this, pauseMs);
  }

  private stopAccepting(): void {
    if (this.watch !== undefined) this.context.loop.rewatch(this.watch, 0);
  }

  onDue(): void {
    if (this.watch !== undefined) this.context.loop.rewatch(this.watch, EPOLLIN);
  }

  /** What was held up because of what waits to be let go goes on, unless nobody is let in for another reason. */
  private acceptAgain(): void {
    const paused = this.dueMs !== Infinity;
    if (!paused) this.onDue();
  }

  private connected(change: 1 | -1): void {
    this.context.connected(change);
    if (change < 0 && this.options.connected) this.context.lastConnectionEnded();
  }

  /** A front-end has held up the data plane: none is accepted for a while. */
  private keepOut(): void {
    const { clock } = this.context.loop;
    clock.read();
    const nowMs = clock.nowMs[0] ?? 0;
    if (nowMs - this.lastOffenceMs > FORGIVEN_AFTER_MS) this.offences = 0;
    this.lastOffenceMs = nowMs;
    const last = HOSTILE_PAUSES_MS.length - 1;
    const pauseMs = HOSTILE_PAUSES_MS[Math.min(this.offences, last)] ?? 0;
    this.offences++;
    this.pauseAccepting(pauseMs);
    this.log('warn', 'kept_out', `no front-end is accepted for ${pauseMs / 1000} s`, { pauseMs });
  }

  private log(
    level: LogLevel,
    code: string,
    message: string,
    fields: Readonly<Record<string, unknown>> = {},
  ): void {
    const suppressed = this.throttle.pass(code);
    if (suppressed === undefined) return;
    this.context.log(level, code, message, {
      device: this.name,
      ...fields,
      ...(suppressed > 0 && { suppressed }),
    });
  }

  /** A bug in accepting; the front-ends that are here go on. */
  onCrash(error: unknown): void {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.log('error', 'internal', `a bug in vhost-rngd, please report it: ${text}`);
  }

  /** Ends the connections and closes the listening socket. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    for (const seat of this.seats) seat.close();
    this.context.budget.remove(this.service.share);
    this.context.pools.release(this.service.pool);
    this.context.loop.timers.disarm(this);
    if (this.watch === undefined) return;
    this.context.loop.unwatch(this.watch);
    closeFd(this.watch.fd);
    this.watch = undefined;
  }
}
