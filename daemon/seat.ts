// A seat of a device: one front-end at a time, any number one after the other; its connection, its counters, and what it has
// passed and is to be let go. Each seat of a device draws on the device's limit.
import { Fault } from '../protocol/fault.js';
import { closeFd, type Fd } from '../shared-memory/fd.js';
import { keepOutOfBand, lookFromStart, peerCredentials } from '../shared-memory/unix-socket.js';
import { BacklogHold } from './backlog-hold.js';
import { Connection } from './connection.js';
import { SeatCounters } from './counters.js';
import type { DataPlaneMessage } from './data-plane-messages.js';
import { DeviceState, type MemoryOptions } from './device-state.js';
import { FrontEndJournal, type Keeping } from './handover/front-end-journal.js';
import type { FrontendRecord, Take } from './handover/frontend-record.js';
import type { InheritedFrontEnd } from './handover/inherited.js';
import { LogThrottle } from './log-throttle.js';
import { Outbox } from './outbox.js';
import { PeerDisposal } from './peer-disposal.js';
import type { ServiceContext } from './ring-service.js';
import type { LogLevel } from './rng-device.js';

/** Lines of one kind for one connection in 10 s. Ours. */
const CONNECTION_LOG_LINES = 1;

/** What all seats of a device share. */
export type SharedService = Omit<ServiceContext, 'counters' | 'owner' | 'disposal'>;

/** What a seat tells its device. */
export interface SeatEvents {
  readonly log: (
    level: LogLevel,
    code: string,
    message: string,
    fields?: Readonly<Record<string, unknown>>,
  ) => void;
  /** A front-end has come (1) or gone (-1). */
  readonly connected: (change: 1 | -1) => void;
  /** The front-end has held up the data plane. */
  readonly offended: () => void;
  /** The seat can take a front-end again. */
  readonly ready: () => void;
}

/** What a seat is made of. */
export interface SeatSetup {
  readonly service: SharedService;
  readonly memory: MemoryOptions;
  /** See ledger.ts. */
  readonly counters: Float64Array;
  /** To the main thread. */
  readonly post: (message: DataPlaneMessage) => void;
  /** The device's name. */
  readonly device: string;
  /** Where front-ends are kept for the next process; undefined: nothing is kept as it comes. */
  readonly keeping: Keeping | undefined;
}

/** One seat. */
export class Seat {
  private static count = 0;
  readonly counters: SeatCounters;
  /** Its number among those who make calls of ours wait; see peer-calls.ts. */
  private readonly number = ++Seat.count;
  private readonly service: ServiceContext;
  private readonly memory: MemoryOptions;
  private readonly on: SeatEvents;
  private readonly disposal: PeerDisposal;
  private readonly hold: BacklogHold;
  private throttle = new LogThrottle(CONNECTION_LOG_LINES);
  private connection: Connection | undefined;
  /** The front-end's process as it connected; 0 when it is in a pid namespace that we cannot see. */
  private peerPid = 0;
  private before = { requests: 0, bytes: 0 };
  private readonly device: string;
  private readonly keeping: Keeping | undefined;
  private journal: FrontEndJournal | undefined;
  /** Of all its front-ends, one after the other; undefined: there was no file for it yet. */
  private outbox: Outbox | undefined;

  constructor(setup: SeatSetup, on: SeatEvents) {
    this.on = on;
    this.memory = setup.memory;
    this.counters = new SeatCounters(setup.counters);
    this.device = setup.device;
    this.keeping = setup.keeping;
    this.outbox = newOutbox();
    const { keeping, post } = setup;
    this.disposal = new PeerDisposal(this.number, post, (fd) => keeping?.vault.release(fd), keeping?.store);
    const { loop, pool, starvation, limiter, turns, share, paused } = setup.service;
    const { counters, number: owner, disposal } = this;
    // Not by spreading: the data path reads this object, whose shape is to be one.
    this.service = { loop, pool, starvation, limiter, turns, share, counters, owner, disposal, paused };
    this.hold = new BacklogHold(setup.service.loop.timers, this.disposal, {
      goOn: () => {
        this.connection?.resume();
        on.ready();
      },
      lasts: () => this.logHeld(),
      bug: (error) => this.endByBug(error),
    });
  }

  get isFree(): boolean {
    return this.connection === undefined;
  }

  /** True while too much of what its front-ends have passed waits to be let go. */
  get isFull(): boolean {
    return this.disposal.isFull();
  }

  /** Tells the device when the seat is no longer full. */
  awaitRoom(): void {
    this.hold.begin();
  }

  /** Closes a connection that is not wanted. */
  turnAway(fd: Fd): void {
    this.disposal.endSocket(fd);
    this.counters.refusedFrontend();
  }

  /**
   * Ends a front-end that is gone: it has hung up, or its process no longer exists, though a copy of its socket may live on.
   * True when the seat is free.
   */
  endIfGone(): boolean {
    if (this.connection === undefined || this.connection.endIfHungUp()) return true;
    if (this.peerPid === 0 || isAlive(this.peerPid)) return false;
    this.connection.endBecause(undefined);
    return true;
  }

  /** Changes what its requests are served from, or whether they are, and looks at what is held. */
  use(change: Partial<Pick<ServiceContext, 'pool' | 'paused'>>): void {
    Object.assign(this.service, change);
    this.lookAgain();
  }

  /** Looks at a request that is held. */
  lookAgain(): void {
    this.connection?.state.lookAgain();
  }

  /** Serves a new front-end (adopts `fd`) until it goes. */
  serve(fd: Fd): void {
    // Before all else: from here on the next process finds it.
    this.keeping?.vault.keep(fd);
    try {
      this.outbox ??= Outbox.create();
      this.outbox.startOver();
      this.journal = this.keeping && FrontEndJournal.begin(this.keeping, this.device);
    } catch (error) {
      this.turnAway(fd);
      this.keeping?.vault.flush();
      this.on.log(
        'warn',
        'accept_failed',
        `a front-end was closed: it cannot be written down: ${textOf(error)}`,
      );
      return;
    }
    const { pid, uid } = peerCredentials(fd);
    keepOutOfBand(fd);
    lookFromStart(fd);
    const connection = this.newConnection(fd, this.outbox, pid);
    this.counters.connected(pid, uid);
    this.on.log('info', 'connected', `a front-end has connected (pid ${pid}, uid ${uid})`, { pid, uid });
    try {
      this.save();
      connection.open();
    } catch (error) {
      this.endByBug(error);
    }
  }

  /** Goes on with a front-end of another process; `take` gives fds of the vault, to be owned. */
  goOn(frontEnd: InheritedFrontEnd, take: Take): void {
    try {
      this.restore(frontEnd, take);
    } catch (error) {
      this.on.log(
        'error',
        'takeover_refused',
        `a front-end is not taken over, and disconnected: ${textOf(error)}`,
      );
      this.connection?.close();
      this.letGo();
    }
  }

  private restore({ record, number, recordFd }: InheritedFrontEnd, take: Take): void {
    if (this.keeping === undefined) closeFd(recordFd);
    else this.journal = FrontEndJournal.goOn(this.keeping, this.device, number, recordFd);
    const fd = take(record.socket);
    const { pid, uid } = peerCredentials(fd);
    const connection = this.newConnection(fd, this.takeOutbox(record, fd, take), pid);
    this.counters.seated(pid, uid);
    connection.restore(record, take);
    if (this.isFree) return;
    this.on.log('info', 'taken_over', `a front-end goes on in this process (pid ${pid}, uid ${uid})`, {
      pid,
      uid,
    });
    this.save();
    connection.open();
  }

  /** Writes down how the front-end stands, for the next process. */
  private save(): void {
    if (this.connection !== undefined) this.journal?.save(this.connection);
  }

  /** Writes the front-end down in another place than where it is kept as it comes. */
  record(keeping: Keeping): void {
    if (this.connection === undefined) return;
    const journal = FrontEndJournal.begin(keeping, this.device);
    journal.save(this.connection);
    journal.close();
  }

  private takeOutbox({ replies }: FrontendRecord, socket: Fd, take: Take): Outbox {
    try {
      const outbox = Outbox.goOn(take(replies.file), replies.end);
      if (this.outbox !== undefined) closeFd(this.outbox.fd);
      this.outbox = outbox;
      return outbox;
    } catch (error) {
      this.disposal.endSocket(socket);
      throw error;
    }
  }

  private newConnection(fd: Fd, outbox: Outbox, pid: number): Connection {
    this.service.loop.calls.acquit(this.number);
    this.peerPid = pid;
    const { requests, bytes } = this.counters;
    this.before = { requests, bytes };
    this.throttle = new LogThrottle(CONNECTION_LOG_LINES);
    const state = new DeviceState(this.service, this.memory, {
      fault: (fault) => this.ringFault(fault),
      memoryNotShared: () => this.logNotShared(),
      bug: (error) => this.endByBug(error),
    });
    const connection = new Connection({ fd, outbox }, this.service, state, {
      refused: (fault) => this.logFault('warn', `a request was refused: ${fault.message}`, fault),
      ended: (fault) => this.ended(fault),
      bug: (error) => this.endByBug(error),
      held: () => this.hold.begin(),
      changed: () => this.save(),
      taken: () => this.journal?.acknowledge(),
    });
    this.connection = connection;
    this.on.connected(1);
    return connection;
  }

  private ringFault(fault: Fault): void {
    if (fault.scope === 'connection') {
      this.connection?.endBecause(fault);
      return;
    }
    this.counters.ringFault();
    this.logFault('warn', `the ring was stopped: ${fault.message}`, fault);
    this.save();
  }

  private ended(fault: Fault | undefined): void {
    if (fault !== undefined) {
      this.counters.connectionFault();
      this.logFault('warn', `the connection was closed: ${fault.message}`, fault);
    }
    const requests = this.counters.requests - this.before.requests;
    const bytes = this.counters.bytes - this.before.bytes;
    const served = { requests, bytes };
    this.on.log(
      'info',
      'disconnected',
      `the front-end has gone; it was given ${bytes} bytes in ${requests} requests`,
      served,
    );
    const { calls } = this.service.loop;
    const accused = calls.isAccused(this.number);
    calls.acquit(this.number);
    // Before the seat is free: a device that is kept out accepts nobody in between.
    if (fault?.code === 'signal_blocked' || accused) this.on.offended();
    this.letGo();
  }

  private letGo(): void {
    const wasConnected = this.connection !== undefined;
    this.connection = undefined;
    this.endJournal();
    this.counters.disconnected();
    if (wasConnected) this.on.connected(-1);
  }

  /** Nothing of the front-end is kept any more; its outbox is for the next one. */
  private endJournal(): void {
    if (this.outbox !== undefined) this.keeping?.vault.release(this.outbox.fd);
    this.journal?.end();
    this.journal = undefined;
  }

  private endByBug(error: unknown): void {
    this.on.log(
      'error',
      'internal',
      `the connection was closed because of a bug in vhost-rngd, please report it: ${textOf(error)}`,
    );
    if (this.connection === undefined) return;
    this.connection.close();
    this.letGo();
  }

  private logNotShared(): void {
    this.logFault(
      'error',
      'the guest kicks, but its ring reads as zeros here: the VMM does not share guest memory; start QEMU with ' +
        '-object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem',
      { code: 'memory_not_shared' },
    );
  }

  private logHeld(): void {
    this.on.log(
      'warn',
      'held_up',
      'what the VMM has passed cannot be closed for now, so its messages, and other front-ends, wait until it is',
    );
  }

  private logFault(level: LogLevel, message: string, fault: { readonly code: string }): void {
    if (this.throttle.pass(fault.code) !== undefined) this.on.log(level, fault.code, message);
  }

  /** Ends the connection, without a word to the device. */
  close(): void {
    this.connection?.close();
    this.connection = undefined;
    this.endJournal();
    if (this.outbox !== undefined) closeFd(this.outbox.fd);
    this.outbox = undefined;
    this.counters.disconnected();
    this.hold.end();
  }
}

/** undefined where there is none for now: a front-end that comes then is refused. */
function newOutbox(): Outbox | undefined {
  try {
    return Outbox.create();
  } catch (error) {
    if (error instanceof Fault) return undefined;
    throw error;
  }
}

/** A fault's sentence; a bug's stack. */
function textOf(error: unknown): string {
  if (error instanceof Fault) return error.message;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** Whether a process of this number exists. Source: kill(2), signal 0. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}
