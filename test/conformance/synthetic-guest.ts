// A guest that is nothing but memory and a ring, and that notices every byte written where none may be.
import type { FrontendMessage } from '../../protocol/message.js';
import type { VringAddrPayload } from '../../protocol/payload.js';
import { FrontendRequest } from '../../protocol/request.js';
import { closeFd, type Fd } from '../../shared-memory/fd.js';
import { signal } from '../../shared-memory/eventfd.js';
import { PAGE_BYTES } from '../../shared-memory/mapping.js';
import { ringBytes } from '../../shared-memory/ring-memory.js';
import { DriverRing } from '../support/driver-ring.js';
import type { Frontend } from '../support/frontend.js';
import { GuestRam, type RegionPlan } from '../support/guest-ram.js';

/** Bytes of a request, as the Linux guest driver makes them. */
const REQUEST_BYTES = 64;
/** Fills the memory, so that a zero that is written shows as well. */
const FILL = 0xa5;

const DEFAULT_REGION: RegionPlan = { guestPhysAddr: 0x10000n, bytes: 1 << 20 };

/** How a guest differs from the usual one: 1 MiB at 0x10000, a ring of 8 at 0x20000, buffers from 0x40000 on. */
export interface GuestPlan {
  readonly regions?: readonly RegionPlan[];
  readonly ringAt?: bigint;
  readonly ringSize?: number;
  readonly index?: number;
  readonly bufferAt?: bigint;
}

/** Guest memory and the driver's side of its ring. Owns the memory. */
export class SyntheticGuest {
  readonly ram: GuestRam;
  readonly ring: DriverRing;
  readonly bufferAt: bigint;
  private image: readonly Buffer[] = [];
  /** Device-writable since the last {@link remember}: guest-physical address and bytes. */
  private writable: (readonly [bigint, number])[] = [];

  constructor(plan: GuestPlan = {}) {
    this.ram = new GuestRam(plan.regions ?? [DEFAULT_REGION]);
    for (const view of this.views()) view.fill(FILL);
    const ringAt = plan.ringAt ?? 0x20000n;
    this.bufferAt = plan.bufferAt ?? 0x40000n;
    const size = plan.ringSize ?? 8;
    const ringSpan = ringBytes.descTable(size) + ringBytes.availRing(size) + ringBytes.usedRing(size);
    this.ram.view(ringAt, ringSpan + PAGE_BYTES).fill(0);
    this.ring = new DriverRing(this.ram, ringAt, size, plan.index);
    this.remember();
  }

  private views(): Buffer[] {
    return this.ram.regions.map((region) => this.ram.view(region.guestPhysAddr, Number(region.size)));
  }

  /** SET_VRING_ADDR for the ring, with some fields changed. */
  vringAddr(change: Partial<VringAddrPayload> = {}): FrontendMessage {
    return {
      request: FrontendRequest.SetVringAddr,
      index: 0,
      flags: 0,
      descUserAddr: this.ram.userAddr(this.ring.descAddress),
      usedUserAddr: this.ram.userAddr(this.ring.usedAddress),
      availUserAddr: this.ram.userAddr(this.ring.availAddress),
      logGuestAddr: 0n,
      ...change,
    };
  }

  /** Offers a buffer without publishing it: the driver's last write before {@link publish}. */
  offer(address = this.bufferAt, length = REQUEST_BYTES): void {
    const head = this.ring.availIndex % this.ring.size;
    this.ring.setDescriptor(head, { address, length, flags: 2 });
    this.ring.offer(head);
    this.writable.push([address, length]);
  }

  /** Shows the device what was offered. */
  publish(): void {
    this.remember();
    this.ring.publish();
  }

  /** Takes the memory as it is now, before the device may write to it, for {@link strayWrites}. */
  remember(): void {
    this.image = this.views().map((view) => Buffer.from(view));
  }

  /** Guest-physical addresses that were written although they are no device-writable bytes; empty: all is well. */
  strayWrites(): string[] {
    const { ring } = this;
    const used: readonly [bigint, number] = [ring.usedAddress, ringBytes.usedRing(ring.size)];
    const availIndex: readonly [bigint, number] = [ring.availAddress + 2n, 2];
    const stray: string[] = [];
    for (const [i, view] of this.views().entries()) {
      // A copy: the device may go on writing to the used ring while this looks.
      const now = Buffer.from(view);
      const start = this.ram.regions[i]?.guestPhysAddr ?? 0n;
      const expected = Buffer.from(this.image[i] ?? []);
      for (const [address, length] of [...this.writable, used, availIndex]) {
        const at = Number(address - start);
        if (at >= 0 && at < now.length) now.copy(expected, at, at, at + length);
      }
      if (now.equals(expected)) continue;
      const at = now.findIndex((byte, offset) => byte !== expected[offset]);
      stray.push(`0x${(start + BigInt(at)).toString(16)}`);
    }
    return stray;
  }

  /** True when nothing at all was written since the last {@link remember}, not even to the used ring. */
  isUnchanged(): boolean {
    return this.views().every((view, i) => view.equals(this.image[i] ?? Buffer.alloc(0)));
  }

  /** True when every 8 bytes of a buffer were given something: 2^-64 to fail for each by chance. */
  isFilled(address = this.bufferAt, length = REQUEST_BYTES): boolean {
    const buffer = this.ram.view(address, length);
    const untouched = Buffer.alloc(8, FILL);
    for (let at = 0; at + 8 <= length; at += 8)
      if (buffer.subarray(at, at + 8).equals(untouched)) return false;
    return true;
  }

  /** Makes one request, kicks through `kick`, and gives what is wrong with the answer; undefined: served. */
  serveOnce(frontend: Frontend, kick: Fd = frontend.kick): string | undefined {
    this.ram.view(this.bufferAt, REQUEST_BYTES).fill(FILL);
    const head = this.ring.availIndex % this.ring.size;
    this.offer();
    this.publish();
    signal(kick);
    const [used] = frontend.waitUsed(this.ring, 1);
    if (used?.id !== head || used.length !== REQUEST_BYTES) return `used element ${JSON.stringify(used)}`;
    if (!this.isFilled()) return 'the buffer was not filled';
    const stray = this.strayWrites();
    this.writable = [];
    this.remember();
    return stray.length > 0 ? `stray writes at ${stray.join()}` : undefined;
  }

  close(): void {
    this.ram.close();
  }
}

/** Closes fds that were passed and are not needed here any more. */
export function closeAll(fds: readonly Fd[]): void {
  for (const fd of fds) closeFd(fd);
}
