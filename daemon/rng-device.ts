// One entropy device: a socket, the front-end that is connected to it, and what outlives connections (limit, counts).
//
// A device serves one front-end at a time, any number one after the other. It is ready for the next one as soon as
// the last has gone.
import { errnoName, Errno } from '../shared-memory/errno.js';
import { EPOLLIN } from '../shared-memory/epoll.js';
import { asFd, closeFd, type Fd } from '../shared-memory/fd.js';
import { acceptFrom, keepOutOfBand, peerCredentials } from '../shared-memory/unix-socket.js';
import type { Fault } from '../protocol/fault.js';
import { BacklogHold } from './backlog-hold.js';
import { Connection } from './connection.js';
import type { DataPlaneMessage } from './data-plane-messages.js';
import { DeviceCounters } from './counters.js';
import { DeviceState, type MemoryOptions } from './device-state.js';
import type { Pools, SourceChoice } from './entropy/pools.js';
import type { Starvation } from './entropy/starvation.js';
import type { EventLoop, Watch, Watcher } from './event-loop.js';
import { type Limit, Limiter } from './limiter.js';
import { LogThrottle } from './log-throttle.js';
import { PeerDisposal } from './peer-disposal.js';
import type { ServiceContext } from './ring-service.js';
import type { SharedBudget } from './shared-budget.js';
import type { Timer } from './timers.js';

/** Connections accepted in one round. Ours. */
const ACCEPTS_PER_ROUND = 16;
/** Without a free descriptor, accepting pauses for this long; the devices that are connected go on. */
const ACCEPT_PAUSE_MS = 100;
/** Once a front-end has held up the data plane the device accepts none for so long, longer each time. Ours. */
const HOSTILE_PAUSES_MS = [10_000, 60_000, 600_000, 3_600_000] as const;
/** After so long without another time, the pauses begin anew. Ours. */
const FORGIVEN_AFTER_MS = 86_400_000;
/** Lines of one kind for one device in 10 s, however many connections make them. Ours. */
const DEVICE_LOG_LINES = 20;
const CONNECTION_LOG_LINES = 1;

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
  /** Counts and facts, which the main thread reads; see counters.ts. */
  readonly counters: SharedArrayBuffer;
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
  /** To the main thread. */
  readonly post: (message: DataPlaneMessage) => void;
  /** A front-end has come or gone. Views that it leaves wait for the garbage collector in the thread's own loop. */
  readonly connected: (change: 1 | -1) => void;
  /** The front-end of an inherited connection has gone: there is nothing left for this device to do. */
  readonly lastConnectionEnded: () => void;
}

/** Serves the front-ends of one socket, one at a time. */
export class RngDevice implements Watcher, Timer {
  private static count = 0;
  dueMs = Infinity;
  readonly name: string;
  private readonly options: DeviceOptions;
  private readonly context: DeviceContext;
  private readonly counters: DeviceCounters;
  /** What outlives connections, limiter and share among it: nobody gets a new quota by coming back. */
  private readonly service: ServiceContext;
  private readonly deviceThrottle = new LogThrottle(DEVICE_LOG_LINES);
  private connectionThrottle = new LogThrottle(CONNECTION_LOG_LINES);
  private watch: Watch | undefined;
  private connection: Connection | undefined;
  /** The front-end's process as it connected; 0 when it is in a pid namespace that we cannot see. */
  private peerPid = 0;
  private readonly number = ++RngDevice.count;
  private readonly disposal: PeerDisposal;
  private readonly hold: BacklogHold;
  /** How often front-ends have held up the data plane, and when last, in ms of the clock. */
  private offences = 0;
  private lastOffenceMs = 0;

  constructor(options: DeviceOptions, context: DeviceContext) {
    this.name = options.name;
    this.options = options;
    this.context = context;
    this.disposal = new PeerDisposal(this.number, context.post);
    this.counters = new DeviceCounters(options.counters);
    this.counters.paused(options.paused);
    const { loop, starvation } = context;
    this.service = {
      loop,
      pool: context.pools.choose(options.entropy),
      starvation,
      limiter: new Limiter(options.limit, loop.clock),
      share: context.budget.newShare(options.weight),
      counters: this.counters,
      device: this.number,
      disposal: this.disposal,
      paused: options.paused,
    };
    this.hold = new BacklogHold(context.loop.timers, this.disposal, {
      goOn: () => this.goOn(),
      lasts: () => this.logHeld(),
      bug: (error) => this.endByBug(error),
    });
  }

  /** Sets another limit, or none, from now on; a request that is held for the old one is looked at again. */
  setLimit(limit: Limit | undefined): void {
    this.service.limiter.change(limit);
    this.connection?.state.lookAgain();
  }

  /** Sets the device's part of the host's budget against the others', 1 to 1000, from the next round on. */
  setWeight(weight: number): void {
    this.service.share.weight = weight;
  }

  /** Draws from other sources from the next request on; all of them are known to the pools. */
  setSources(choice: SourceChoice): void {
    this.service.pool = this.context.pools.choose(choice);
    this.connection?.state.lookAgain();
  }

  /** Holds requests, or serves them again; the connection stays. */
  setPaused(paused: boolean): void {
    this.service.paused = paused;
    this.counters.paused(paused);
    this.connection?.state.lookAgain();
  }

  /** Starts to accept, or to serve the inherited connection. */
  open(): void {
    const fd = asFd(this.options.fd);
    if (this.options.connected) {
      this.serve(fd);
      return;
    }
    const watch = this.context.loop.watch(fd, EPOLLIN, this);
    if (typeof watch === 'number')
      throw new Error(`watching the socket of ${this.name}: ${errnoName(watch)}`);
    this.watch = watch;
  }

  onEvents(): void {
    for (let i = 0; i < ACCEPTS_PER_ROUND; i++) {
      if (this.disposal.isFull()) {
        this.stopAccepting();
        this.hold.begin();
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

  /** What was held up because of what waits to be let go goes on. */
  private goOn(): void {
    this.connection?.resume();
    const paused = this.dueMs !== Infinity;
    if (!paused) this.onDue();
  }

  private accept(fd: Fd): void {
    if (this.connection !== undefined && !this.isGone(this.connection)) {
      const { pid } = peerCredentials(fd);
      this.disposal.endSocket(fd);
      this.counters.refusedFrontend();
      this.log(
        'warn',
        'busy',
        `a second front-end (pid ${pid}) was closed: this device serves one at a time`,
      );
      return;
    }
    this.serve(fd);
  }

  /** A front-end is gone when it has hung up, or when its process no longer exists: a copy of its socket may live on. */
  private isGone(connection: Connection): boolean {
    if (connection.endIfHungUp()) return true;
    if (this.peerPid === 0 || isAlive(this.peerPid)) return false;
    connection.endBecause(undefined);
    return true;
  }

  private serve(fd: Fd): void {
    const { pid, uid } = peerCredentials(fd);
    keepOutOfBand(fd);
    this.context.loop.calls.acquit(this.number);
    this.peerPid = pid;
    this.counters.connected(pid, uid);
    const before = { requests: this.counters.requests, bytes: this.counters.bytes };
    this.connectionThrottle = new LogThrottle(CONNECTION_LOG_LINES);
    const state = new DeviceState(this.service, this.options.memory, {
      fault: (fault) => {
        if (fault.scope === 'connection') {
          connection.endBecause(fault);
          return;
        }
        this.counters.ringFault();
        this.logFault('warn', `the ring was stopped: ${fault.message}`, fault);
      },
      memoryNotShared: () => this.logNotShared(),
      bug: (error) => this.endByBug(error),
    });
    const connection = new Connection(fd, this.service, state, {
      refused: (fault) => this.logFault('warn', `a request was refused: ${fault.message}`, fault),
      ended: (fault) => {
        const { requests, bytes } = this.counters;
        this.connectionEnded(fault, { requests: requests - before.requests, bytes: bytes - before.bytes });
      },
      bug: (error) => this.endByBug(error),
      held: () => this.hold.begin(),
      changed: () => undefined,
    });
    this.connection = connection;
    this.context.connected(1);
    this.log('info', 'connected', `a front-end has connected (pid ${pid}, uid ${uid})`, { pid, uid });
    connection.open();
  }

  private connectionEnded(fault: Fault | undefined, served: { requests: number; bytes: number }): void {
    if (fault !== undefined) {
      this.counters.connectionFault();
      this.logFault('warn', `the connection was closed: ${fault.message}`, fault);
    }
    const { requests, bytes } = served;
    this.log(
      'info',
      'disconnected',
      `the front-end has gone; it was given ${bytes} bytes in ${requests} requests`,
      served,
    );
    this.letGo();
    const accused = this.context.loop.calls.isAccused(this.number);
    if (fault?.code === 'signal_blocked' || accused) this.keepOut();
  }

  /** A front-end has held up the data plane: none is accepted for a while. */
  private keepOut(): void {
    this.context.loop.calls.acquit(this.number);
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

  private letGo(): void {
    this.connection = undefined;
    this.counters.disconnected();
    this.context.connected(-1);
    if (this.options.connected) this.context.lastConnectionEnded();
  }

  private endByBug(error: unknown): void {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.log(
      'error',
      'internal',
      `the connection was closed because of a bug in vhost-rngd, please report it: ${text}`,
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
    this.log(
      'warn',
      'held_up',
      'what the VMM has passed cannot be closed for now, so its messages, and other front-ends, wait until it is',
    );
  }

  private logFault(level: LogLevel, message: string, fault: { readonly code: string }): void {
    if (this.connectionThrottle.pass(fault.code) !== undefined) this.log(level, fault.code, message);
  }

  private log(
    level: LogLevel,
    code: string,
    message: string,
    fields: Readonly<Record<string, unknown>> = {},
  ): void {
    const suppressed = this.deviceThrottle.pass(code);
    if (suppressed === undefined) return;
    this.context.log(level, code, message, {
      device: this.name,
      ...fields,
      ...(suppressed > 0 && { suppressed }),
    });
  }

  onCrash(error: unknown): void {
    this.endByBug(error);
  }

  /** Ends the connection and closes the listening socket. */
  close(): void {
    this.connection?.close();
    this.connection = undefined;
    this.counters.disconnected();
    this.context.budget.remove(this.service.share);
    this.context.loop.timers.disarm(this);
    this.hold.end();
    if (this.watch === undefined) return;
    this.context.loop.unwatch(this.watch);
    closeFd(this.watch.fd);
    this.watch = undefined;
  }
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
