// A synthetic virtual machine: memory, driver and front-end together, set up on a device of a real daemon.
import { FrontendRequest } from '../../protocol/request.js';
import { type DescriptorPlan, Desc, DriverRing, type UsedElement } from './driver-ring.js';
import { DEFAULT_FEATURES, Frontend } from './frontend.js';
import { GuestRam, type RegionPlan } from './guest-ram.js';

/** Where the ring begins, and behind it the part of memory that tests use as they like. */
export const RING_BASE = 0x10000n;
export const DATA_BASE = 0x40000n;

/** One more than two rounds of the daemon's loop handle. */
const SETTLING_REQUESTS = 2 * 32 + 1;

export interface MachineOptions {
  readonly size?: number;
  readonly features?: bigint;
  /** Where the ring's indices begin. */
  readonly index?: number;
  readonly regions?: readonly RegionPlan[];
  /** False: the memory's file can be shrunk, so the daemon guards every access. */
  readonly sealed?: boolean;
  readonly bytes?: number;
}

/** A machine that is connected. Owns its memory, eventfds and socket. */
export class VirtualMachine {
  readonly ram: GuestRam;
  readonly ring: DriverRing;
  readonly frontend: Frontend;
  private closed = false;

  private constructor(path: string, options: MachineOptions) {
    const region = {
      guestPhysAddr: RING_BASE,
      bytes: options.bytes ?? 1 << 20,
      sealed: options.sealed ?? true,
    };
    this.ram = new GuestRam(options.regions ?? [region]);
    this.ring = new DriverRing(this.ram, RING_BASE, options.size ?? 16, options.index ?? 0);
    this.frontend = Frontend.connect(path);
  }

  /** Connects without a word to the daemon yet. */
  static connect(path: string, options: MachineOptions = {}): VirtualMachine {
    return new VirtualMachine(path, options);
  }

  /** Connects and sets everything up to a running ring. */
  static start(path: string, options: MachineOptions = {}): VirtualMachine {
    const machine = new VirtualMachine(path, options);
    machine.frontend.setUp(machine.ram, machine.ring, { features: options.features ?? DEFAULT_FEATURES });
    return machine;
  }

  /** Stores descriptors from index 0 on; `flags` and `next` as given. */
  describe(plans: readonly DescriptorPlan[]): void {
    plans.forEach((plan, i) => this.ring.setDescriptor(i, plan));
  }

  /** Makes one request of `length` bytes at `address` under `head`, and gives what came back. */
  request(length = 64, address = DATA_BASE, head = 0): UsedElement {
    this.ring.request(head, address, length);
    this.frontend.kickRing();
    return this.frontend.waitUsed(this.ring, 1)[0] ?? { id: -1, length: -1 };
  }

  /** Keeps all `depth` descriptors of a ring offered, each a buffer of `length` bytes behind the other. */
  offerAll(length: number, address = DATA_BASE): void {
    for (let i = 0; i < this.ring.size; i++) {
      this.ring.setDescriptor(i, { address: address + BigInt(i * length), length, flags: Desc.Write });
      this.ring.offer(i);
    }
    this.ring.publish();
  }

  /**
   * Returns once what was kicked before has been served, or throws when the daemon has closed the connection.
   *
   * A kick may come to the daemon's loop one round after the first of these requests, and is served at the end of a
   * round; a round handles at most 32 requests of a connection (connection.ts).
   */
  settle(): void {
    for (let i = 0; i < SETTLING_REQUESTS; i++) this.frontend.send({ request: FrontendRequest.GetFeatures });
    for (let i = 0; i < SETTLING_REQUESTS; i++) {
      if (this.frontend.receive() === undefined) throw new Error('the daemon has closed the connection');
    }
  }

  /** A new ring in the place of the old one, as a driver makes it after a reset. */
  freshRing(): DriverRing {
    this.ram.view(this.ring.descAddress, Number(this.ring.end - this.ring.descAddress)).fill(0);
    return new DriverRing(this.ram, RING_BASE, this.ring.size);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.frontend.close();
    this.ram.close();
  }
}
