// The epoll instance of the data plane. Source: epoll(7), epoll_ctl(2).
import { errnoName } from './errno.js';
import { asFd, closeFd, type Fd } from './fd.js';
import { NativeMemory } from './ffi.js';
import * as libc from './libc.js';

export const EPOLLIN = 0x001;
export const EPOLLOUT = 0x004;
export const EPOLLERR = 0x008;
export const EPOLLHUP = 0x010;
export const EPOLLRDHUP = 0x2000;
/** Edge-triggered: each write to a watched eventfd wakes once, and the counter need not be read. */
export const EPOLLET = 0x80000000 | 0;

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;

/** struct epoll_event is packed on x86-64 only. Source: linux/eventpoll.h. */
const EVENT_WORDS = process.arch === 'x64' ? 3 : 4;
const DATA_WORD = process.arch === 'x64' ? 1 : 2;
/** Events taken in one call; what is left over comes with the next. */
const MAX_EVENTS = 64;

/** Watches file descriptors; each carries a token of 32 bits, and a generation that tells stale events apart. */
export class Epoll {
  private readonly fd: Fd;
  private readonly waitFor: (timeoutMs: number) => number;
  private readonly one = new NativeMemory(EVENT_WORDS * 4);
  private readonly events = new NativeMemory(MAX_EVENTS * EVENT_WORDS * 4);

  constructor() {
    const fd = libc.epollCreate(libc.EPOLL_CLOEXEC);
    if (fd < 0) throw new Error(`epoll_create1: ${errnoName(fd)}`);
    this.fd = asFd(fd);
    this.waitFor = libc.bindEpollWait(fd, this.events, MAX_EVENTS);
  }

  /** Starts watching; 0 or a negated error number (EPERM for what cannot be polled). */
  add(fd: Fd, events: number, token: number, generation: number): number {
    return this.control(EPOLL_CTL_ADD, fd, events, [token, generation]);
  }

  /** Changes what is watched. */
  modify(fd: Fd, events: number, token: number, generation: number): number {
    return this.control(EPOLL_CTL_MOD, fd, events, [token, generation]);
  }

  /** Stops watching. Must come before the fd is closed: a duplicate elsewhere would keep it watched. */
  remove(fd: Fd): void {
    this.control(EPOLL_CTL_DEL, fd, 0, [0, 0]);
  }

  private control(operation: number, fd: Fd, events: number, data: readonly [number, number]): number {
    this.one.words[0] = events;
    this.one.words[DATA_WORD] = data[0];
    this.one.words[DATA_WORD + 1] = data[1];
    return libc.epollCtl(this.fd, operation, fd, this.one.address);
  }

  /** Waits up to `timeoutMs` (-1 for ever, 0 not at all); gives the number of events, or a negated error number. */
  wait(timeoutMs: number): number {
    return this.waitFor(timeoutMs);
  }

  eventMask(i: number): number {
    return this.events.words[i * EVENT_WORDS] ?? 0;
  }

  eventToken(i: number): number {
    return this.events.words[i * EVENT_WORDS + DATA_WORD] ?? 0;
  }

  eventGeneration(i: number): number {
    return this.events.words[i * EVENT_WORDS + DATA_WORD + 1] ?? 0;
  }

  close(): void {
    closeFd(this.fd);
  }
}
