// What one front-end has set up on a device: features, memory table, ring, status. Each request is handled here.
//
// Source: vhost-user, "Front-end message types"; the daemon's policies for bad input are in ARCHITECTURE.md.
import { fdKind, type Fd } from '../shared-memory/fd.js';
import { GuestMemory } from '../shared-memory/guest-memory.js';
import type { MemoryPolicy, RegionDescription } from '../shared-memory/memory-region.js';
import type { RingFeatures } from '../shared-memory/split-virtqueue.js';
import { Fault } from '../protocol/fault.js';
import {
  has,
  maskOf,
  ProtocolFeature,
  protocolFeatureNames,
  VirtioFeature,
  virtioFeatureNames,
} from '../protocol/features.js';
import type { FrontendMessage } from '../protocol/message.js';
import { encodeU64Reply, encodeVringStateReply } from '../protocol/reply.js';
import { FrontendRequest, frontendRequestName } from '../protocol/request.js';
import type { SeatCounters } from './counters.js';
import {
  type DeviceRecord,
  hex,
  type Keep,
  recordOfRegion,
  regionOfRecord,
  type Take,
} from './handover/frontend-record.js';
import {
  ASSUMED_PROTOCOL_FEATURES,
  FEATURE_FIXES,
  NEEDS,
  OFFERED_FEATURES,
  OFFERED_PROTOCOL_FEATURES,
  QUEUES,
  TOLERATED_FEATURES,
} from './offered-features.js';
import type { PeerDisposal } from './peer-disposal.js';
import type { ServiceContext } from './ring-service.js';
import { type RingEvents, Vring } from './vring.js';

const LARGEST_STATUS = 0xffn;

/** A reply in wire form, a refusal, or nothing to say. */
export type Handled = Uint8Array | Fault | undefined;

/** How the operator wants memory to be treated. */
export interface MemoryOptions {
  readonly memoryPolicy: MemoryPolicy;
  /** Memory slots offered through CONFIGURE_MEM_SLOTS; 0: not offered. */
  readonly memSlots: number;
}

/** The device as one front-end has set it up; lives as long as the connection. */
export class DeviceState {
  private readonly options: MemoryOptions;
  private readonly disposal: PeerDisposal;
  private readonly counters: SeatCounters;
  private readonly vring: Vring;
  private readonly offeredProtocolFeatures: bigint;
  private features = 0n;
  private protocolFeatures = ASSUMED_PROTOCOL_FEATURES;
  private owned = false;
  private status = 0n;
  private memory: GuestMemory | undefined;
  private backendReqFd: Fd | undefined;

  constructor(context: ServiceContext, options: MemoryOptions, events: RingEvents) {
    this.options = options;
    this.disposal = context.disposal;
    this.counters = context.counters;
    this.tellFeatures();
    this.tellMemory();
    this.vring = new Vring(context, events);
    const slots = options.memSlots > 0 ? maskOf(ProtocolFeature.CONFIGURE_MEM_SLOTS) : 0n;
    this.offeredProtocolFeatures = OFFERED_PROTOCOL_FEATURES | slots;
  }

  /**
   * Handles one request. Takes the fds that it keeps out of `fds`; the caller closes those that are left.
   *
   * Gives the request's own reply, a Fault whose scope says what must end, or undefined for success.
   */
  handle(message: FrontendMessage, fds: Fd[]): Handled {
    const feature = NEEDS.get(message.request);
    if (feature !== undefined && !has(this.protocolFeatures, feature)) return notNegotiated(message.request);
    switch (message.request) {
      case FrontendRequest.GetFeatures:
        return encodeU64Reply(message.request, OFFERED_FEATURES);
      case FrontendRequest.SetFeatures:
        return this.setFeatures(message.features);
      case FrontendRequest.GetProtocolFeatures:
        return encodeU64Reply(message.request, this.offeredProtocolFeatures);
      case FrontendRequest.SetProtocolFeatures:
        return this.setProtocolFeatures(message.features);
      case FrontendRequest.GetQueueNum:
        return encodeU64Reply(message.request, QUEUES);
      case FrontendRequest.SetOwner:
        return this.setOwner();
      case FrontendRequest.ResetOwner:
        this.owned = false;
        return this.enable(false);
      case FrontendRequest.ResetDevice:
        return this.resetDevice();
      case FrontendRequest.SetStatus:
        return this.setStatus(message.status);
      case FrontendRequest.GetStatus:
        return encodeU64Reply(message.request, this.status);
      case FrontendRequest.SetBackendReqFd:
        return this.setBackendReqFd(fds);
      case FrontendRequest.SetMemTable:
        return this.setMemTable(message.regions, fds);
      case FrontendRequest.GetMaxMemSlots:
        return encodeU64Reply(message.request, BigInt(this.options.memSlots));
      case FrontendRequest.AddMemReg:
        return this.addMemReg(message.region, fds);
      case FrontendRequest.RemMemReg:
        return this.remMemReg(message.region);
      case FrontendRequest.SetVringNum:
      case FrontendRequest.SetVringBase:
      case FrontendRequest.SetVringEnable:
      case FrontendRequest.GetVringBase:
        return this.vringState(message.request, message.index, message.num);
      case FrontendRequest.SetVringAddr:
        return this.onVring(message.index, () => this.setVringAddr(message));
      case FrontendRequest.SetVringKick:
      case FrontendRequest.SetVringCall:
      case FrontendRequest.SetVringErr:
        return this.onVring(message.index, () => this.vringFd(message.request, message.noFd, fds));
      default:
        // Everything else belongs to another device type or to a feature that is never offered.
        return notNegotiated(message.request);
    }
  }

  private setFeatures(features: bigint): Handled {
    const foreign = features & ~(OFFERED_FEATURES | TOLERATED_FEATURES);
    if (foreign !== 0n) {
      const fix =
        FEATURE_FIXES.find(([bit]) => has(foreign, bit))?.[1] ??
        'this VMM enables features that were not offered';
      const names = virtioFeatureNames(foreign).join(', ');
      return refuse('features_not_offered', `expected features that were offered, got ${names}: ${fix}`);
    }
    const before = this.features;
    this.features = features;
    // Without PROTOCOL_FEATURES there is no SET_VRING_ENABLE: rings are enabled from the start.
    if (!has(features, VirtioFeature.PROTOCOL_FEATURES)) this.vring.enabled = true;
    if (before !== features) this.vring.useFeatures(this.ringFeatures());
    this.updateVring();
    this.tellFeatures();
    return undefined;
  }

  private setProtocolFeatures(features: bigint): Handled {
    const foreign = features & ~this.offeredProtocolFeatures;
    if (has(foreign, ProtocolFeature.INBAND_NOTIFICATIONS)) {
      return new Fault(
        'connection',
        'inband_notifications',
        'expected no INBAND_NOTIFICATIONS, got it without an offer: notifications need eventfds',
      );
    }
    if (foreign !== 0n) {
      const names = protocolFeatureNames(foreign).join(', ');
      return refuse(
        'protocol_features_not_offered',
        `expected protocol features that were offered, got ${names}`,
      );
    }
    this.protocolFeatures = features;
    this.tellFeatures();
    return undefined;
  }

  private setOwner(): Handled {
    if (this.owned) return refuse('owner_twice', 'expected SET_OWNER once, got it again');
    this.owned = true;
    return undefined;
  }

  private setStatus(status: bigint): Handled {
    if (status > LARGEST_STATUS) {
      return refuse('status_range', `expected a device status of 8 bits, got 0x${status.toString(16)}`);
    }
    this.status = status;
    return undefined;
  }

  private setBackendReqFd(fds: Fd[]): Handled {
    const fd = fds.shift();
    if (fd === undefined)
      return refuse('backend_req_fd', 'expected a socket with SET_BACKEND_REQ_FD, got no fd');
    if (fdKind(fd) !== 'socket') {
      fds.push(fd);
      return refuse('backend_req_fd', `expected a socket with SET_BACKEND_REQ_FD, got a ${fdKind(fd)}`);
    }
    if (this.backendReqFd !== undefined) this.disposal.closeFd(this.backendReqFd);
    this.backendReqFd = fd;
    return undefined;
  }

  /** Stops the ring and forgets what was negotiated for it; memory and protocol features stay. */
  private resetDevice(): Handled {
    this.vring.reset();
    this.features = 0n;
    this.status = 0n;
    this.tellFeatures();
    return undefined;
  }

  private setMemTable(regions: readonly RegionDescription[], fds: Fd[]): Handled {
    if (fds.length !== regions.length) {
      return refuse(
        'memory_fd_count',
        `expected one fd for each of ${regions.length} memory regions, got ${fds.length}: the VMM must share its ` +
          'memory, for QEMU with -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem',
      );
    }
    const table = GuestMemory.map(regions, fds, this.options.memoryPolicy);
    if (table instanceof Fault) return table;
    fds.length = 0;
    const old = this.memory;
    this.useMemory(table);
    old?.unmap(this.disposal);
    return undefined;
  }

  private addMemReg(region: RegionDescription, fds: Fd[]): Handled {
    const fd = fds[0];
    if (fd === undefined) return refuse('memory_fd_count', 'expected an fd with ADD_MEM_REG, got none');
    const table = this.memory ?? GuestMemory.empty();
    if (table.regions.length >= this.options.memSlots) {
      return refuse('memory_slots', `expected at most ${this.options.memSlots} memory regions, got one more`);
    }
    const larger = table.withRegion(region, fd, this.options.memoryPolicy);
    if (larger instanceof Fault) return larger;
    fds.shift();
    this.useMemory(larger);
    return undefined;
  }

  private remMemReg(description: RegionDescription): Handled {
    const region = this.memory?.find(description);
    if (region === undefined || this.memory === undefined) {
      return refuse(
        'memory_region_unknown',
        `expected a known memory region, got 0x${description.guestPhysAddr.toString(16)}`,
      );
    }
    this.useMemory(this.memory.without(region));
    // SAFETY: the ring has just left this table, so nothing refers to the region's views any more.
    region.unmap(this.disposal);
    return undefined;
  }

  /** Swaps the table under the ring, which moves to it or stops. */
  private useMemory(table: GuestMemory): void {
    this.memory = table;
    this.tellMemory();
    this.vring.moveTo(table, this.ringFeatures());
  }

  private onVring(index: number, handle: () => Handled): Handled {
    return index === 0 ? handle() : refuse('vring_index', `expected ring 0, the only one, got ring ${index}`);
  }

  private vringState(request: number, index: number, num: number): Handled {
    return this.onVring(index, () => {
      switch (request) {
        case FrontendRequest.SetVringNum:
          return this.vring.setNum(num);
        case FrontendRequest.SetVringBase:
          return this.vring.setBase(num);
        case FrontendRequest.SetVringEnable:
          if (!has(this.features, VirtioFeature.PROTOCOL_FEATURES)) return notNegotiated(request);
          if (num > 1) return refuse('vring_enable', `expected 0 or 1, got ${num}`);
          return this.enable(num === 1);
        default:
          return encodeVringStateReply(request, index, this.vring.stop());
      }
    });
  }

  private setVringAddr(
    message: Extract<FrontendMessage, { request: typeof FrontendRequest.SetVringAddr }>,
  ): Handled {
    const refused = this.vring.setAddresses(message, this.memory);
    if (refused !== undefined || this.memory === undefined) return refused;
    this.vring.moveTo(this.memory, this.ringFeatures());
    this.updateVring();
    return undefined;
  }

  private vringFd(request: number, noFd: boolean, fds: Fd[]): Handled {
    const fd = fds.shift();
    if (noFd !== (fd === undefined)) {
      if (fd !== undefined) this.disposal.closeFd(fd);
      return refuse(
        'vring_fd',
        `expected ${noFd ? 'no fd' : 'an fd'} with ${frontendRequestName(request)}, as its bit 8 says`,
      );
    }
    if (request === FrontendRequest.SetVringCall) return this.vring.setCall(fd);
    if (request === FrontendRequest.SetVringErr) return this.vring.setErr(fd);
    const refused = this.vring.setKick(fd);
    this.updateVring();
    return refused;
  }

  private enable(enabled: boolean): Handled {
    this.vring.enabled = enabled;
    this.updateVring();
    return undefined;
  }

  private updateVring(): void {
    this.vring.update(this.memory, this.ringFeatures());
  }

  private ringFeatures(): RingFeatures {
    return {
      indirectDesc: has(this.features, VirtioFeature.INDIRECT_DESC),
      eventIdx: has(this.features, VirtioFeature.EVENT_IDX),
      notifyOnEmpty: has(this.features, VirtioFeature.NOTIFY_ON_EMPTY),
    };
  }

  private tellFeatures(): void {
    this.counters.negotiated(this.features, this.protocolFeatures);
  }

  private tellMemory(): void {
    const regions = this.memory?.regions ?? [];
    this.counters.mapped({
      regions: regions.length,
      bytes: regions.reduce((sum, { size }) => sum + size, 0),
      sealedRegions: regions.filter(({ sealed }) => sealed).length,
    });
  }

  /** Looks at the ring again: what its request was held for may have changed. */
  lookAgain(): void {
    this.vring.lookAgain();
  }

  /** The set-up for whoever goes on with this front-end. */
  record(keep: Keep): DeviceRecord {
    return {
      features: hex(this.features),
      protocolFeatures: hex(this.protocolFeatures),
      owned: this.owned,
      status: hex(this.status),
      regions:
        this.memory?.regions.map(({ description, fd }) => recordOfRegion(description, keep(fd))) ?? null,
      backendReq: this.backendReqFd === undefined ? null : keep(this.backendReqFd),
      vring: this.vring.record(keep),
    };
  }

  /** Sets a new device up as the record says, and starts its ring; on a fault the connection is to be closed. */
  restore(record: DeviceRecord, take: Take): Fault | undefined {
    this.features = BigInt(record.features);
    this.protocolFeatures = BigInt(record.protocolFeatures);
    this.owned = record.owned;
    this.status = BigInt(record.status);
    this.tellFeatures();
    this.backendReqFd = record.backendReq === null ? undefined : take(record.backendReq);
    const mapped = this.restoreMemory(record.regions, take);
    if (mapped instanceof Fault) return mapped;
    const refused = this.vring.restore(record.vring, take);
    if (refused === undefined) this.updateVring();
    return refused;
  }

  private restoreMemory(regions: DeviceRecord['regions'], take: Take): Fault | undefined {
    if (regions === null) return undefined;
    const fds: Fd[] = [];
    try {
      for (const { file } of regions) fds.push(take(file));
      const refused = this.setMemTable(regions.map(regionOfRecord), fds);
      return refused instanceof Fault ? refused : undefined;
    } finally {
      for (const fd of fds) this.disposal.closeFd(fd);
    }
  }

  /** Lets everything go: ring, fds, mappings. */
  close(): void {
    this.vring.reset();
    this.memory?.unmap(this.disposal);
    this.memory = undefined;
    this.tellMemory();
    if (this.backendReqFd !== undefined) this.disposal.endSocket(this.backendReqFd);
    this.backendReqFd = undefined;
  }
}

function refuse(code: string, message: string): Fault {
  return new Fault('request', code, message);
}

function notNegotiated(request: number): Fault {
  return refuse(
    'not_negotiated',
    `expected a request of a negotiated feature, got ${frontendRequestName(request)}`,
  );
}
