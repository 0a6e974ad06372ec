// The load: synthetic guests that keep a number of requests outstanding on each of their devices.
import { Epoll, EPOLLET, EPOLLIN } from '../../shared-memory/epoll.js';
import { DriverRing, Desc } from '../support/driver-ring.js';
import { Frontend } from '../support/frontend.js';
import { GuestRam } from '../support/guest-ram.js';

const RING_BASE = 0x10000n;
const BUFFER_BASE = 0x20000n;

/** What each device asks for. */
export interface LoadOptions {
  /** Requests kept outstanding on each device; the ring has this size, at least 2. */
  readonly depth: number;
  readonly bytes: number;
  /** Look at the used rings without sleeping, as a guest that spins does. */
  readonly spin: boolean;
}

/** What was measured. */
export interface LoadResult {
  readonly requests: number;
  readonly seconds: number;
  /** Round trips in us, ascending. */
  readonly latenciesUs: Float64Array;
}

interface LoadedDevice {
  readonly frontend: Frontend;
  readonly ram: GuestRam;
  readonly ring: DriverRing;
  readonly sentMs: Float64Array;
}

/** Guests on every socket. */
export class Load {
  private readonly devices: LoadedDevice[];
  private readonly epoll = new Epoll();
  private readonly options: LoadOptions;

  constructor(sockets: readonly string[], options: LoadOptions) {
    this.options = options;
    this.devices = sockets.map((path, i) => {
      const ram = new GuestRam();
      const ring = new DriverRing(ram, RING_BASE, Math.max(2, options.depth));
      const frontend = Frontend.connect(path);
      frontend.setUp(ram, ring);
      for (let head = 0; head < options.depth; head++) {
        ring.setDescriptor(head, {
          address: BUFFER_BASE + BigInt(head * options.bytes),
          length: options.bytes,
          flags: Desc.Write,
        });
      }
      this.epoll.add(frontend.call, EPOLLIN | EPOLLET, i, 0);
      return { frontend, ram, ring, sentMs: new Float64Array(options.depth) };
    });
  }

  /** Runs until `requests` are complete over all devices. */
  run(requests: number): LoadResult {
    const latenciesUs = new Float64Array(requests);
    let done = 0;
    const started = performance.now();
    for (const device of this.devices) this.refill(device, this.options.depth, started);
    while (done < requests) {
      if (this.options.spin) {
        for (const device of this.devices) done = this.collect(device, latenciesUs, done);
        continue;
      }
      const events = this.epoll.wait(1000);
      if (events === 0) throw new Error(`no request came back for 1 s, after ${done}`);
      for (let i = 0; i < events; i++) {
        const device = this.devices[this.epoll.eventToken(i)];
        if (device !== undefined) done = this.collect(device, latenciesUs, done);
      }
    }
    const seconds = (performance.now() - started) / 1000;
    this.drain();
    return { requests: done, seconds, latenciesUs: latenciesUs.sort() };
  }

  private refill(device: LoadedDevice, count: number, now: number): void {
    if (count === 0) return;
    const { ring, sentMs } = device;
    for (let i = 0; i < count; i++) {
      const head = ring.availIndex % this.options.depth;
      sentMs[head] = now;
      ring.offer(head);
    }
    ring.publish();
    if (ring.wantsKick(false)) device.frontend.kickRing();
  }

  /** Takes what is complete, and asks for as much again while more is to be measured. */
  private collect(device: LoadedDevice, latenciesUs: Float64Array, before: number): number {
    let done = before;
    let taken = 0;
    const now = performance.now();
    for (let element = device.ring.take(); element !== undefined; element = device.ring.take()) {
      if (done < latenciesUs.length) latenciesUs[done++] = (now - (device.sentMs[element.id] ?? 0)) * 1000;
      taken++;
    }
    if (done < latenciesUs.length) this.refill(device, taken, now);
    return done;
  }

  private drain(): void {
    for (const { ring, frontend } of this.devices) {
      while (ring.usedIndex !== ring.availIndex) if (ring.take() === undefined) frontend.waitCall(10);
    }
  }

  close(): void {
    for (const { frontend, ram } of this.devices) {
      frontend.close();
      ram.close();
    }
    this.epoll.close();
  }
}
