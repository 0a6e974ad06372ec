// The driver's side of a split virtqueue, in the memory of a synthetic guest. Source: virtio-v1.3 §2.7.13, §2.7.14.
import { ringBytes } from '../../shared-memory/ring-memory.js';
import type { GuestRam } from './guest-ram.js';

export const Desc = { Next: 1, Write: 2, Indirect: 4 } as const;

/** A descriptor as a test writes it. */
export interface DescriptorPlan {
  readonly address: bigint;
  readonly length: number;
  readonly flags?: number;
  readonly next?: number;
}

/** A completed request as the driver finds it in the used ring. */
export interface UsedElement {
  readonly id: number;
  readonly length: number;
}

/** Plays the driver. Holds views of the guest's memory: drop it before the memory is closed. */
export class DriverRing {
  readonly size: number;
  readonly descAddress: bigint;
  readonly availAddress: bigint;
  readonly usedAddress: bigint;
  readonly avail: Uint16Array;
  readonly used16: Uint16Array;
  private readonly desc: DataView;
  private readonly used32: Uint32Array;
  private readonly ram: GuestRam;
  /** Next index to publish, and next to take from the used ring; both modulo 2^16. */
  availIndex: number;
  usedIndex: number;

  /** Lays the ring out from `base` on (a multiple of 4096), beginning at `index`. */
  constructor(ram: GuestRam, base: bigint, size: number, index = 0) {
    this.ram = ram;
    this.size = size;
    this.descAddress = base;
    this.availAddress = base + BigInt(ringBytes.descTable(size));
    const availEnd = this.availAddress + BigInt(ringBytes.availRing(size));
    this.usedAddress = (availEnd + 4095n) & ~4095n;
    const desc = ram.view(this.descAddress, ringBytes.descTable(size));
    const avail = ram.view(this.availAddress, ringBytes.availRing(size));
    const used = ram.view(this.usedAddress, ringBytes.usedRing(size));
    this.desc = new DataView(desc.buffer, desc.byteOffset, desc.length);
    this.avail = new Uint16Array(avail.buffer, avail.byteOffset, avail.length / 2);
    this.used16 = new Uint16Array(used.buffer, used.byteOffset, used.length / 2);
    this.used32 = new Uint32Array(used.buffer, used.byteOffset, (used.length - 2) / 4);
    this.availIndex = index;
    this.usedIndex = index;
    this.avail[1] = index;
    this.used16[1] = index;
  }

  /** The first byte behind the ring. */
  get end(): bigint {
    return this.usedAddress + BigInt(ringBytes.usedRing(this.size));
  }

  setDescriptor(index: number, plan: DescriptorPlan): void {
    writeDescriptor(this.desc, index * 16, plan);
  }

  /** Writes an indirect table to guest memory; it may cross regions. */
  setIndirectTable(address: bigint, plans: readonly DescriptorPlan[]): void {
    const table = new DataView(new ArrayBuffer(plans.length * 16));
    plans.forEach((plan, i) => writeDescriptor(table, i * 16, plan));
    this.ram.store(address, new Uint8Array(table.buffer));
  }

  /** Makes a chain available; publish() shows it to the device. */
  offer(head: number): void {
    this.avail[2 + (this.availIndex % this.size)] = head;
    this.availIndex = (this.availIndex + 1) & 0xffff;
  }

  publish(): void {
    Atomics.store(this.avail, 1, this.availIndex);
  }

  /** Offers one device-writable buffer under descriptor `head` and publishes it. */
  request(head: number, address: bigint, length: number): void {
    this.setDescriptor(head, { address, length, flags: Desc.Write });
    this.offer(head);
    this.publish();
  }

  /** Takes the next completed request, if there is one. */
  take(): UsedElement | undefined {
    if (Atomics.load(this.used16, 1) === this.usedIndex) return undefined;
    const at = 1 + 2 * (this.usedIndex % this.size);
    this.usedIndex = (this.usedIndex + 1) & 0xffff;
    return { id: this.used32[at] ?? -1, length: this.used32[at + 1] ?? -1 };
  }

  /** used.idx as the device has published it. */
  get deviceUsedIndex(): number {
    return Atomics.load(this.used16, 1);
  }

  /** True when the device asks for a kick at the request that was published last. */
  wantsKick(eventIdx: boolean): boolean {
    if (!eventIdx) return ((this.used16[0] ?? 0) & 1) === 0;
    const availEvent = Atomics.load(this.used16, 2 + 4 * this.size);
    return availEvent === ((this.availIndex - 1) & 0xffff);
  }

  setAvailFlags(flags: number): void {
    Atomics.store(this.avail, 0, flags);
  }

  setUsedEvent(index: number): void {
    Atomics.store(this.avail, 2 + this.size, index);
  }
}

function writeDescriptor(view: DataView, at: number, plan: DescriptorPlan): void {
  view.setBigUint64(at, plan.address, true);
  view.setUint32(at + 8, plan.length, true);
  view.setUint16(at + 12, plan.flags ?? 0, true);
  view.setUint16(at + 14, plan.next ?? 0, true);
}
