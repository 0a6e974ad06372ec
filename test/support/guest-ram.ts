// The memory of a synthetic guest: memfds mapped here, so that a test can play the guest's driver in it.
import { ftruncateSync } from 'node:fs';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import { Mapping } from '../../shared-memory/mapping.js';
import { openMemfd } from '../../shared-memory/memfd.js';
import type { MemoryRegionPayload } from '../../protocol/message.js';

/** Where a region of the synthetic guest lies, in bytes. */
export interface RegionPlan {
  readonly guestPhysAddr: bigint;
  readonly bytes: number;
  readonly userAddr?: bigint;
  readonly sealed?: boolean;
  /** Bytes of the file in front of the region; a multiple of 4096. */
  readonly mmapOffset?: number;
}

/** User addresses differ from guest-physical ones by this much, so that a mix-up of the two is seen. */
const USER_ADDRESS_SHIFT = 0x7f00_0000_0000n;

/** A guest's memory: one memfd for each region. Owns the fds and mappings. */
export class GuestRam {
  readonly regions: readonly MemoryRegionPayload[];
  readonly fds: readonly Fd[];
  private readonly mappings: readonly Mapping[];
  private readonly plans: readonly RegionPlan[];

  /** One region of 1 MiB at guest-physical 0x10000 unless told otherwise. */
  constructor(plans: readonly RegionPlan[] = [{ guestPhysAddr: 0x10000n, bytes: 1 << 20 }]) {
    this.plans = plans;
    this.regions = plans.map((plan) => ({
      guestPhysAddr: plan.guestPhysAddr,
      size: BigInt(plan.bytes),
      userAddr: plan.userAddr ?? plan.guestPhysAddr + USER_ADDRESS_SHIFT,
      mmapOffset: BigInt(plan.mmapOffset ?? 0),
    }));
    this.fds = plans.map((plan) =>
      openMemfd('rngd', (plan.mmapOffset ?? 0) + plan.bytes, { sealed: plan.sealed ?? true }),
    );
    this.mappings = plans.map((plan, i) => {
      const mapping = Mapping.ofFile(this.fds[i] ?? -1, plan.mmapOffset ?? 0, plan.bytes, false);
      if (typeof mapping === 'number') throw new Error(`mmap of guest memory: ${mapping}`);
      return mapping;
    });
  }

  /** Copies of the fds for whoever adopts them, as the kernel makes them of fds that are passed. */
  passedFds(): Fd[] {
    return this.fds.map((fd) => asFd(libc.fcntl(fd, libc.F_DUPFD_CLOEXEC, 0)));
  }

  /** The front-end's address of a guest-physical address. */
  userAddr(guestPhysAddr: bigint): bigint {
    const region = this.regions.find(
      (r) => guestPhysAddr >= r.guestPhysAddr && guestPhysAddr < r.guestPhysAddr + r.size,
    );
    if (region === undefined) throw new RangeError(`0x${guestPhysAddr.toString(16)} is not in the guest`);
    return guestPhysAddr - region.guestPhysAddr + region.userAddr;
  }

  /** A view of guest memory within one region. */
  view(guestPhysAddr: bigint, length: number): Buffer {
    for (const [i, plan] of this.plans.entries()) {
      const offset = guestPhysAddr - plan.guestPhysAddr;
      const mapping = this.mappings[i];
      if (mapping !== undefined && offset >= 0n && offset + BigInt(length) <= BigInt(plan.bytes)) {
        return mapping.view(Number(offset), length);
      }
    }
    throw new RangeError(`0x${guestPhysAddr.toString(16)} + ${length} is not in one region of the guest`);
  }

  /** Stores bytes at an address; they may cross from one region to the next. */
  store(guestPhysAddr: bigint, bytes: Uint8Array): void {
    bytes.forEach((byte, i) => (this.view(guestPhysAddr + BigInt(i), 1)[0] = byte));
  }

  /** Shrinks a region's file, as a VMM might; views of it must not be touched afterwards. */
  truncate(region: number, bytes: number): void {
    ftruncateSync(this.fds[region] ?? -1, bytes);
  }

  close(): void {
    for (const mapping of this.mappings) mapping.unmap();
    for (const fd of this.fds) closeFd(fd);
  }
}
