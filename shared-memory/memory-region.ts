// One region of guest memory: a part of a file that the VMM passed, mapped here.
//
// Data path: the bytes of a request go into the guest through copyIn(). A region whose file cannot shrink is
// touched directly, through windows; any other is reached by calls that return EFAULT where a plain store would
// raise SIGBUS and end the process.
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import type { Disposal } from './disposal.js';
import { closeFd, type Fd, type FdInfo, inspectFd, isSealedAgainstShrinking } from './fd.js';
import { errnoName } from './errno.js';
import type { NativeMemory } from './ffi.js';
import * as libc from './libc.js';
import { Mapping, PAGE_BYTES } from './mapping.js';
import { Fault } from '../protocol/fault.js';

/** What is done with memory whose file can still be shrunk under us (`--memory`). */
export const MEMORY_POLICIES = ['guard', 'require-sealed', 'trust'] as const;
export type MemoryPolicy = (typeof MEMORY_POLICIES)[number];

/** A region as the front-end describes it; all in bytes, 64 bits. Source: vhost-user, "Memory region description". */
export interface RegionDescription {
  readonly guestPhysAddr: bigint;
  readonly size: bigint;
  readonly userAddr: bigint;
  readonly mmapOffset: bigint;
}

/** Memory of the daemon's own that bytes are copied from or to. */
export type OwnMemory = Pick<NativeMemory, 'bytes' | 'words' | 'address'>;

/**
 * Windows are made at first touch, a few for each region: a Linux guest uses the same one or two buffers all the time.
 * More would let a guest grow what V8 counts as external memory, and collects garbage for, without bound.
 */
const WINDOW_BYTES = 2 ** 20;
const MAX_WINDOWS = 8;
/** From here on one memcpy(3) call, 0.3 us, is faster than a loop of 32-bit stores. */
const MEMCPY_FROM_BYTES = 1024;

interface Window {
  readonly start: number;
  readonly bytes: Buffer;
  readonly words: Int32Array;
}

const U64_END = 1n << 64n;
const TWO_32 = 2 ** 32;

/** A mapped region. Addresses on the data path are two 32-bit halves, so that no bigint is made there. */
export class MemoryRegion {
  readonly description: RegionDescription;
  /** In bytes; exact, since a region is never larger than what mmap(2) can give. */
  readonly size: number;
  /** False when a touch could raise SIGBUS: unsealed, huge pages, strict overcommit. Then only guarded calls touch it. */
  readonly direct: boolean;
  /** True when nobody can shrink the region's file any more. */
  readonly sealed: boolean;
  /** The region's file, owned: whoever takes the guest over maps it anew. */
  readonly fd: Fd;
  private readonly gpaHigh: number;
  private readonly gpaLow: number;
  private readonly mapping: Mapping;
  /** Where the region begins in the mapping, which begins on a page of the file. */
  private readonly mappingOffset: number;
  private readonly windows: Window[] = [];
  private lastWindow: Window | undefined;

  private constructor(
    description: RegionDescription,
    mapping: Mapping,
    place: {
      readonly fd: Fd;
      readonly mappingOffset: number;
      readonly direct: boolean;
      readonly sealed: boolean;
    },
  ) {
    this.description = description;
    this.fd = place.fd;
    this.size = Number(description.size);
    this.direct = place.direct;
    this.sealed = place.sealed;
    this.gpaHigh = Number(description.guestPhysAddr >> 32n);
    this.gpaLow = Number(description.guestPhysAddr & 0xffff_ffffn);
    this.mapping = mapping;
    this.mappingOffset = place.mappingOffset;
  }

  /** Maps a region from `fd`, and adopts it; a fault of scope `request` when it cannot be used: `fd` stays the caller's. */
  static map(description: RegionDescription, fd: Fd, policy: MemoryPolicy): MemoryRegion | Fault {
    const refused = checkRegion(description, fd, policy);
    if (refused) return refused;
    const info = inspectFd(fd);
    const sealed = isSealedAgainstShrinking(fd);
    // A huge-page file is mapped in whole huge pages.
    const blockBytes = Math.max(PAGE_BYTES, info.blockBytes);
    const alignment = BigInt(Number.isInteger(Math.log2(blockBytes)) ? blockBytes : PAGE_BYTES);
    const start = (description.mmapOffset / alignment) * alignment;
    const mappingOffset = Number(description.mmapOffset - start);
    const end = description.mmapOffset + description.size;
    const length = Number(((end - start + alignment - 1n) / alignment) * alignment);
    const mapping = Mapping.ofFile(fd, Number(start), length, alignment > PAGE_BYTES);
    if (typeof mapping === 'number') {
      return refuse('memory_map_failed', `mmap of ${length} bytes: ${errnoName(mapping)}${mapHint(mapping)}`);
    }
    // A hole that the VMM punches gives a huge page's reservation back, whatever is sealed: guarded too.
    const stays = sealed && blockBytes === PAGE_BYTES && !STRICT_OVERCOMMIT;
    const direct = stays || policy === 'trust';
    return new MemoryRegion(description, mapping, { fd, mappingOffset, direct, sealed });
  }

  /**
   * The offset of a guest-physical address in this region, or -1.
   *
   * Exact for every 64-bit address: a difference that a double cannot hold is far outside of any region.
   */
  offsetOf(high: number, low: number): number {
    const offset = (high - this.gpaHigh) * TWO_32 + (low - this.gpaLow);
    return offset >= 0 && offset < this.size ? offset : -1;
  }

  /** A view for a ring's own use: `length` bytes from `offset`. The ring drops it before the table goes. */
  view(offset: number, length: number): Buffer {
    return this.mapping.view(this.mappingOffset + offset, length);
  }

  /** The address here of `offset`, for guarded calls. */
  addressAt(offset: number): number {
    return this.mapping.address + this.mappingOffset + offset;
  }

  /**
   * Copies `length` bytes of `source` from `sourceOffset` into the region at `offset`; the caller has checked
   * that they lie inside. Gives 0, or EFAULT negated when guarded memory has vanished.
   */
  copyIn(offset: number, source: OwnMemory, sourceOffset: number, length: number): number {
    if (!this.direct) {
      return copied(libc.guardedWrite(source.address + sourceOffset, this.addressAt(offset), length), length);
    }
    const at = this.mappingOffset + offset;
    const within = at % WINDOW_BYTES;
    const window =
      within + length <= WINDOW_BYTES && length < MEMCPY_FROM_BYTES ? this.window(at - within) : undefined;
    if (window === undefined) {
      // SAFETY: [offset, offset + length) is inside this mapping, whose file cannot shrink.
      libc.memcpy(this.addressAt(offset), source.address + sourceOffset, length);
      return 0;
    }
    if (((within | sourceOffset | length) & 3) === 0) {
      copyWords(window.words, within >> 2, source.words, sourceOffset >> 2, length >> 2);
    } else {
      for (let i = 0; i < length; i++) window.bytes[within + i] = source.bytes[sourceOffset + i] ?? 0;
    }
    return 0;
  }

  /** Copies `length` bytes at `offset` into `target` at `targetOffset`; as {@link copyIn}. */
  copyOut(offset: number, target: OwnMemory, targetOffset: number, length: number): number {
    if (!this.direct) {
      return copied(libc.guardedRead(target.address + targetOffset, this.addressAt(offset), length), length);
    }
    // SAFETY: as in copyIn().
    libc.memcpy(target.address + targetOffset, this.addressAt(offset), length);
    return 0;
  }

  /** The window that begins at `start` of the mapping; undefined when there are enough windows already. */
  private window(start: number): Window | undefined {
    if (this.lastWindow?.start === start) return this.lastWindow;
    let found: Window | undefined;
    for (let i = 0; i < this.windows.length; i++)
      if (this.windows[i]?.start === start) found = this.windows[i];
    if (found === undefined) {
      if (this.windows.length === MAX_WINDOWS) return undefined;
      const bytes = this.mapping.view(start, Math.min(WINDOW_BYTES, this.mapping.length - start));
      found = { start, bytes, words: new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2) };
      this.windows.push(found);
    }
    this.lastWindow = found;
    return found;
  }

  /** Drops every window, lets the mapping go and closes the file. Rings on this region were stopped before. */
  unmap(disposal?: Disposal): void {
    this.unmapOnly(disposal);
    if (disposal === undefined) closeFd(this.fd);
    else disposal.closeFd(this.fd);
  }

  /** As unmap(), and gives `fd` back to the caller. */
  unmapOnly(disposal?: Disposal): void {
    this.windows.length = 0;
    this.lastWindow = undefined;
    this.mapping.unmap(disposal);
  }
}

// eslint-disable-next-line max-params -- the innermost loop of the data path takes numbers, not objects
function copyWords(to: Int32Array, toWord: number, from: Int32Array, fromWord: number, count: number): void {
  for (let i = 0; i < count; i++) to[toWord + i] = from[fromWord + i] ?? 0;
}

/** What a guarded copy means: all bytes, or none that count. */
function copied(result: number, length: number): number {
  if (result === length) return 0;
  return result < 0 ? result : -constants.errno.EFAULT;
}

function refuse(code: string, message: string): Fault {
  return new Fault('request', code, message);
}

/** A fault of scope `request` where such a region of `fd` cannot be used, before it is mapped. */
export function checkRegion(description: RegionDescription, fd: Fd, policy: MemoryPolicy): Fault | undefined {
  return (
    checkDescription(description) ??
    checkFile(description, inspectFd(fd), policy, isSealedAgainstShrinking(fd))
  );
}

function checkDescription(region: RegionDescription): Fault | undefined {
  const { guestPhysAddr, size, userAddr, mmapOffset } = region;
  if (size === 0n)
    return refuse('memory_region_empty', 'expected a memory region of 1 byte or more, got size 0');
  for (const [name, start] of Object.entries({ guestPhysAddr, userAddr, mmapOffset })) {
    if (start + size > U64_END) {
      return refuse(
        'memory_region_wraps',
        `expected ${name} + size within 64 bits, got 0x${start.toString(16)} + 0x${size.toString(16)}`,
      );
    }
  }
  return undefined;
}

function checkFile(
  region: RegionDescription,
  info: FdInfo,
  policy: MemoryPolicy,
  sealed: boolean,
): Fault | undefined {
  if (info.kind !== 'regular file') {
    return refuse(
      'memory_fd_kind',
      `expected a memory fd that is a regular file or memfd, got a ${info.kind}`,
    );
  }
  if (!info.local && policy !== 'trust') {
    return refuse(
      'memory_file_system',
      'expected guest memory in a memfd, on tmpfs, hugetlbfs or a local disk, got a file whose pages may never come: ' +
        'start QEMU with memory-backend-memfd,share=on, or the daemon with --memory=trust',
    );
  }
  if (!sealed && policy === 'require-sealed') {
    return refuse(
      'memory_not_sealed',
      'expected memory sealed with F_SEAL_SHRINK, got a file that can be shrunk: start QEMU with ' +
        'memory-backend-memfd,share=on (seal=on is its default), or the daemon with --memory=guard',
    );
  }
  // Mapping 1 GiB of a 4 KiB file succeeds, and the first touch ends the process: so the size is looked at first.
  const end = region.mmapOffset + region.size;
  if (end > info.bytes) {
    return refuse(
      'memory_file_short',
      `expected a memory file of 0x${end.toString(16)} bytes or more, got 0x${info.bytes.toString(16)}`,
    );
  }
  return undefined;
}

/**
 * With strict overcommit a page of a sealed memfd that the VMM gave back can fail to come again: SIGBUS.
 * Source: Linux, vm.overcommit_memory = 2.
 */
const STRICT_OVERCOMMIT = strictOvercommit();

function strictOvercommit(): boolean {
  try {
    return readFileSync('/proc/sys/vm/overcommit_memory', 'utf8').trim() === '2';
  } catch {
    return true;
  }
}

function mapHint(result: number): string {
  const hints: Record<string, string> = {
    EACCES: ' (the VMM passed it read-only: open guest memory for writing)',
    EPERM: ' (the memfd is sealed against writing)',
    ENOMEM: ' (raise vm.max_map_count or the memory limit of this service)',
  };
  return hints[errnoName(result)] ?? '';
}
