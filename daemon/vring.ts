// One ring's set-up as the front-end describes it: size, addresses, base, fds, enabled; and when that makes it run.
//
// A ring runs when it was started by SET_VRING_KICK, is enabled, and has a size and addresses that the memory
// table covers. Source: vhost-user, "Ring states" and "Vring state".
import { EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN } from '../shared-memory/epoll.js';
import { readEventfd } from '../shared-memory/eventfd.js';
import { fdKind, setNonBlocking, type Fd } from '../shared-memory/fd.js';
import type { GuestMemory } from '../shared-memory/guest-memory.js';
import { openRingMemory } from '../shared-memory/ring-memory.js';
import { socketRole } from '../shared-memory/unix-socket.js';
import { MAX_QUEUE_SIZE, SplitVirtqueue, type RingFeatures } from '../shared-memory/split-virtqueue.js';
import { Errno, errnoName } from '../shared-memory/errno.js';
import { Fault } from '../protocol/fault.js';
import type { Watch, Watcher } from './event-loop.js';
import { RingState } from './counters.js';
import {
  addressesOfRecord,
  type Keep,
  recordOfAddresses,
  type Take,
  type VringRecord,
} from './handover/frontend-record.js';
import { signalBlocked } from './peer-calls.js';
import { RingService, type ServiceContext } from './ring-service.js';
import type { Timer } from './timers.js';
import { checkAddresses, findPlaces, type RingAddresses } from './vring-places.js';

/** How often a ring is looked at whose front-end asks for polling (SET_VRING_KICK without an fd). Ours. */
const POLLED_RING_MS = 1;
/**
 * Starts and moves of a ring on one connection. Each leaves views behind whose memory comes back when the connection ends
 * (0.7 KiB); a guest that reboots needs one.
 */
const MAX_STARTS = 65_536;
const MAX_BASE = 0xffff;
/** What a ring tells its device. */
export interface RingEvents {
  /** The ring stopped because of a fault; the err fd has been signalled. */
  fault(fault: Fault): void;
  /** The guest kicks a ring that it seems never to have written: its memory is not shared with us. */
  memoryNotShared(): void;
  /** A bug of ours. */
  bug(error: unknown): void;
}

/** A ring from SET_VRING_NUM to GET_VRING_BASE. Owns its kick, call and err fds. */
export class Vring implements Watcher, Timer {
  dueMs = Infinity;
  enabled = false;
  private readonly context: ServiceContext;
  private readonly events: RingEvents;
  private size = 0;
  private base = 0;
  private addresses: RingAddresses | undefined;
  /** Set by SET_VRING_KICK, cleared when the ring stops: the spec's "started". */
  private started = false;
  private faulted = false;
  private kickFd: Fd | undefined;
  private kickWatch: Watch | undefined;
  private callFd: Fd | undefined;
  private errFd: Fd | undefined;
  /** Pipes are signalled aside. */
  private callAside = false;
  private errAside = false;
  private service: RingService | undefined;
  private kicksOfUntouchedRing = 0;
  private starts = 0;
  /** A request was served on this connection before, so memory is shared, and the kick fd may count old kicks. */
  private hasServed = false;
  /** A process before has served this ring. */
  private goesOn = false;

  constructor(context: ServiceContext, events: RingEvents) {
    this.context = context;
    this.events = events;
  }

  get running(): boolean {
    return this.service !== undefined;
  }

  setNum(num: number): Fault | undefined {
    if (this.running) return refuse('vring_running', 'expected SET_VRING_NUM while the ring is stopped');
    if (num === 0 || num > MAX_QUEUE_SIZE || (num & (num - 1)) !== 0) {
      return refuse('vring_num', `expected a power of two from 1 to ${MAX_QUEUE_SIZE}, got ${num}`);
    }
    this.size = num;
    return undefined;
  }

  setBase(base: number): Fault | undefined {
    if (this.running) return refuse('vring_running', 'expected SET_VRING_BASE while the ring is stopped');
    if (base > MAX_BASE) return refuse('vring_base', `expected a base from 0 to ${MAX_BASE}, got ${base}`);
    this.base = base;
    return undefined;
  }

  /** Takes addresses that `memory` covers; a running ring moves there. */
  setAddresses(addresses: RingAddresses, memory: GuestMemory | undefined): Fault | undefined {
    if (this.size === 0) return refuse('vring_no_num', 'expected SET_VRING_NUM before SET_VRING_ADDR');
    if (memory === undefined)
      return refuse('vring_no_memory', 'expected a memory table before SET_VRING_ADDR');
    const places = checkAddresses(addresses) ?? findPlaces(addresses, memory, this.size);
    if (places instanceof Fault) return places;
    this.addresses = addresses;
    this.clearFault();
    return undefined;
  }

  /** Starts the ring (adopts `fd`; undefined: the front-end wants polling). The old kick fd is let go first. */
  setKick(fd: Fd | undefined): Fault | undefined {
    if (fd !== undefined && fdKind(fd) !== 'eventfd') {
      const kind = fdKind(fd);
      this.context.disposal.closeFd(fd);
      return refuse('kick_fd_kind', `expected an eventfd as kick, got a ${kind}`);
    }
    this.dropKick();
    if (fd !== undefined) {
      setNonBlocking(fd);
      const { owner, loop } = this.context;
      loop.calls.enter(owner);
      const watch = loop.watch(fd, EPOLLIN | EPOLLET, this);
      loop.calls.leave();
      if (typeof watch === 'number') {
        this.context.disposal.closeFd(fd);
        return refuse('kick_fd_watch', `expected a kick fd that can be watched, got ${errnoName(watch)}`);
      }
      this.kickWatch = watch;
      this.kickFd = fd;
    }
    this.started = true;
    this.clearFault();
    this.service?.resume();
    this.pollWithoutKick();
    return undefined;
  }

  /** Adopts the fd that tells the guest of completed requests; a running ring signals it once, at once. */
  setCall(fd: Fd | undefined): Fault | undefined {
    const { disposal } = this.context;
    const refused = fd && notSignallable(fd, 'call');
    if (fd !== undefined && refused) disposal.closeFd(fd);
    if (refused) return refused;
    if (fd !== undefined) setNonBlocking(fd);
    if (this.callFd !== undefined) disposal.closeFd(this.callFd);
    this.callFd = fd;
    this.callAside = fd !== undefined && fdKind(fd) === 'pipe';
    this.service?.useCall(fd, this.callAside);
    if (!this.running || fd === undefined) return undefined;
    return this.signal(fd, this.callAside) === -Errno.EINTR ? signalBlocked() : undefined;
  }

  private signal(fd: Fd, aside: boolean): number {
    const { loop, owner, disposal } = this.context;
    return aside ? disposal.signalAside(fd) : loop.calls.signal(fd, owner);
  }

  /** Adopts the fd that tells the front-end of a ring that was stopped by a fault. */
  setErr(fd: Fd | undefined): Fault | undefined {
    const { disposal } = this.context;
    const refused = fd && notSignallable(fd, 'err');
    if (fd !== undefined && refused) disposal.closeFd(fd);
    if (refused) return refused;
    if (fd !== undefined) setNonBlocking(fd);
    if (this.errFd !== undefined) disposal.closeFd(this.errFd);
    this.errFd = fd;
    this.errAside = fd !== undefined && fdKind(fd) === 'pipe';
    return undefined;
  }

  /** Starts, stops or leaves the ring as its set-up now says. */
  update(memory: GuestMemory | undefined, features: RingFeatures): void {
    const wanted = this.started && this.enabled && !this.faulted && this.addresses !== undefined;
    if (!wanted || memory === undefined) {
      this.halt();
    } else if (this.service === undefined) {
      this.run(memory, features);
    }
  }

  /** Takes newly negotiated features into use; a running ring re-reads its mode at its next pass. */
  useFeatures(features: RingFeatures): void {
    this.service?.queue.useFeatures(features);
    this.service?.resume();
  }

  /** Brings a running ring to the loop for a pass: what it was held for may have changed. */
  lookAgain(): void {
    this.service?.resume();
  }

  /** Goes on in another memory table, or stops with a fault when that no longer covers the ring. */
  moveTo(memory: GuestMemory, features: RingFeatures): void {
    if (this.service === undefined) return;
    this.halt();
    this.run(memory, features);
  }

  private run(memory: GuestMemory, features: RingFeatures): void {
    if (this.addresses === undefined) return;
    const places = findPlaces(this.addresses, memory, this.size);
    if (places instanceof Fault) {
      this.stopWithFault(new Fault('ring', places.code, places.message));
      return;
    }
    if (++this.starts > MAX_STARTS) {
      const message = `expected at most ${MAX_STARTS} starts of a ring on one connection, got more: reconnect`;
      this.stopWithFault(new Fault('ring', 'ring_restarts', message));
      return;
    }
    this.context.loop.countViews();
    const ring = openRingMemory(places, this.size);
    const base = this.goesOn ? ring.usedIndex() : this.base;
    this.goesOn = false;
    const queue = new SplitVirtqueue(this.size, ring, memory, { base, features });
    this.service = new RingService(queue, this.context, {
      fault: (fault) => this.stopWithFault(fault),
      bug: (error) => this.events.bug(error),
    });
    this.service.useCall(this.callFd, this.callAside);
    this.service.resume();
    this.context.counters.ring(RingState.Running, this.size);
    this.pollWithoutKick();
  }

  /** The ring no longer runs: nothing is written or signalled; where it stopped is kept as its base. */
  private halt(): void {
    if (this.service === undefined) return;
    this.base = this.service.queue.base;
    this.hasServed ||= this.service.served > 0;
    this.service.stop();
    this.service = undefined;
    this.context.counters.ring(RingState.Stopped, 0);
    this.context.loop.timers.disarm(this);
  }

  private stopWithFault(fault: Fault): void {
    this.halt();
    this.faulted = true;
    this.context.counters.ring(RingState.Faulted, this.size);
    // Nobody reads this call fd any more: the next SET_VRING_CALL brings another.
    if (fault.code === 'call_failed') this.setCall(undefined);
    const blocked =
      fault.scope === 'ring' &&
      this.errFd !== undefined &&
      this.signal(this.errFd, this.errAside) === -Errno.EINTR;
    this.events.fault(blocked ? signalBlocked() : fault);
  }

  private clearFault(): void {
    this.faulted = false;
  }

  /** The set-up for whoever goes on with this ring. Where a running ring stands is in guest memory. */
  record(keep: Keep): VringRecord {
    const { size, addresses, started, enabled, faulted } = this;
    const kept = (fd: Fd | undefined): number | null => (fd === undefined ? null : keep(fd));
    return {
      size,
      base: this.service?.queue.base ?? this.base,
      addresses: addresses === undefined ? null : recordOfAddresses(addresses),
      started,
      enabled,
      running: this.running,
      faulted,
      hasServed: this.hasServed || (this.service?.served ?? 0) > 0,
      kick: kept(this.kickFd),
      call: kept(this.callFd),
      err: kept(this.errFd),
    };
  }

  /**
   * Sets a new ring up as the record says; it does not run yet, and whether the memory table covers it is checked when it does:
   * a ring that is stopped may have lost its memory.
   */
  restore(record: VringRecord, take: Take): Fault | undefined {
    const taken = (number: number | null): Fd | undefined => (number === null ? undefined : take(number));
    this.base = record.base;
    this.goesOn = record.running;
    this.hasServed = record.hasServed;
    this.addresses = record.addresses === null ? undefined : addressesOfRecord(record.addresses);
    const refused =
      (record.size === 0 ? undefined : this.setNum(record.size)) ??
      (this.addresses && checkAddresses(this.addresses)) ??
      this.setCall(taken(record.call)) ??
      this.setErr(taken(record.err)) ??
      (record.started ? this.setKick(taken(record.kick)) : undefined);
    this.enabled = record.enabled;
    this.faulted = record.faulted;
    return refused;
  }

  /** GET_VRING_BASE: stops at once, lets kick and call go, and gives the first index that was not served. */
  stop(): number {
    this.halt();
    this.started = false;
    this.clearFault();
    this.dropKick();
    this.setCall(undefined);
    return this.base;
  }

  /** Back to the state of a new connection, fds closed. */
  reset(): void {
    this.stop();
    this.setErr(undefined);
    this.enabled = false;
    this.size = 0;
    this.base = 0;
    this.addresses = undefined;
    this.kicksOfUntouchedRing = 0;
  }

  private dropKick(): void {
    this.unwatchKick();
    if (this.kickFd !== undefined) this.context.disposal.closeFd(this.kickFd);
    this.kickFd = undefined;
  }

  private unwatchKick(): void {
    if (this.kickWatch === undefined) return;
    const { owner, loop } = this.context;
    loop.calls.enter(owner);
    loop.unwatch(this.kickWatch);
    loop.calls.leave();
    this.kickWatch = undefined;
  }

  private readKick(kickFd: Fd): number {
    const { owner, loop } = this.context;
    loop.calls.enter(owner);
    const count = readEventfd(kickFd);
    loop.calls.leave();
    return count;
  }

  /** A kick. Its counter is not read: the edge has told all there is. */
  onEvents(events: number): void {
    if ((events & EPOLLHUP) !== 0 && this.kickWatch !== undefined) {
      this.unwatchKick();
      return;
    }
    if ((events & EPOLLERR) !== 0 && this.kickFd !== undefined) this.readKick(this.kickFd);
    if (this.service === undefined) return;
    this.service.kicked();
    if (this.service.served === 0 && !this.hasServed) this.lookForSharing(this.service);
  }

  /**
   * QEMU without share=on passes the fd but keeps the guest's pages to itself: the guest kicks, and the ring stays
   * all zeros here. The counter tells kicks that one event stands for; the first one is QEMU's own.
   */
  private lookForSharing(service: RingService): void {
    if (this.kickFd === undefined || service.queue.hasWork()) return;
    this.kicksOfUntouchedRing += Math.max(1, this.readKick(this.kickFd));
    if (this.kicksOfUntouchedRing >= 2 && service.queue.looksUntouched()) this.events.memoryNotShared();
  }

  onCrash(error: unknown): void {
    this.events.bug(error);
  }

  /** A running ring without a kick fd is looked at on a timer; any other is not. */
  private pollWithoutKick(): void {
    if (this.service !== undefined && this.kickFd === undefined)
      this.context.loop.timers.armIn(this, POLLED_RING_MS);
    else this.context.loop.timers.disarm(this);
  }

  onDue(): void {
    this.service?.kicked();
    this.pollWithoutKick();
  }
}

function refuse(code: string, message: string): Fault {
  return new Fault('request', code, message);
}

/**
 * call and err are written to: an eventfd, or the pipe or Unix socket that virtio_uml passes. Whoever holds another kind of
 * socket too can hold its lock, and a write would wait for that without end.
 */
function notSignallable(fd: Fd, role: 'call' | 'err'): Fault | undefined {
  const kind = fdKind(fd);
  if (kind === 'eventfd' || kind === 'pipe') return undefined;
  if (kind === 'socket' && socketRole(fd) !== 'not a unix socket') return undefined;
  return refuse(
    `${role}_fd_kind`,
    `expected an eventfd, pipe or Unix socket as ${role}, got another ${kind}`,
  );
}
