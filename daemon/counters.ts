// What was done in one seat of a device (seat.ts), and how its front-end stands, in memory that two threads share: the data plane writes, the main thread
// reads whenever it is asked, so no look at a device waits for the data plane or costs it anything.
//
// One writer, whole aligned doubles: on the hosts that the daemon runs on no reader sees half of a number. Each number is
// right by itself; two of them may be from either side of a change. Counts are kept over reconnects.
import { LATENCY_BUCKETS, bucketOf } from './latency.js';

/** Places in the shared array; behind them lie the latency buckets. */
const Slot = {
  Requests: 0,
  Bytes: 1,
  Malformed: 2,
  RingFaults: 3,
  ConnectionFaults: 4,
  Connections: 5,
  Refusals: 6,
  HeldForLimit: 7,
  HeldForEntropy: 8,
  HeldForBudget: 25,
  RingState: 9,
  RingSize: 10,
  Hold: 11,
  HoldSinceMs: 12,
  ThrottledMs: 13,
  StarvedMs: 14,
  PeerPid: 15,
  PeerUid: 16,
  FeaturesHigh: 17,
  FeaturesLow: 18,
  ProtocolFeaturesLow: 19,
  MemoryRegions: 20,
  MemoryBytes: 21,
  SealedRegions: 22,
  LatencySumMs: 23,
  Connected: 24,
} as const;
type Slot = (typeof Slot)[keyof typeof Slot];
const LATENCY_AT = Object.keys(Slot).length;
/** One more for what is longer than the last bound. */
const SLOTS = LATENCY_AT + LATENCY_BUCKETS + 1;
/** What one set of counters takes, in doubles: whole lines of a CPU's cache. */
export const COUNTER_WORDS = Math.ceil(SLOTS / 8) * 8;

/** How a ring stands. */
export const RingState = { Stopped: 0, Running: 1, Faulted: 2 } as const;
export type RingState = (typeof RingState)[keyof typeof RingState];

/** Why requests are held. */
export const Hold = { None: 0, Limit: 1, Entropy: 2, Pause: 3, Budget: 4 } as const;
export type Hold = (typeof Hold)[keyof typeof Hold];

/** Guest memory as far as an operator decides on it. */
export interface MemoryFacts {
  readonly regions: number;
  readonly bytes: number;
  readonly sealedRegions: number;
}

/** Either end of one seat's counters; only the data plane calls what changes them. */
export class SeatCounters {
  private readonly values: Float64Array;

  /** `values`: {@link COUNTER_WORDS} doubles, which another process may have begun to count in. */
  constructor(values: Float64Array = new Float64Array(COUNTER_WORDS)) {
    this.values = values;
  }

  private at(slot: Slot): number {
    return this.values[slot] ?? 0;
  }

  private add(slot: Slot, more: number): void {
    this.values[slot] = (this.values[slot] ?? 0) + more;
  }

  /** Requests completed with at least one byte. */
  get requests(): number {
    return this.at(Slot.Requests);
  }

  /** Bytes of entropy that were delivered. */
  get bytes(): number {
    return this.at(Slot.Bytes);
  }

  /** Malformed chains, completed with 0 bytes. */
  get malformed(): number {
    return this.at(Slot.Malformed);
  }

  /** Rings that were stopped because of what the guest or the VMM did. */
  get ringFaults(): number {
    return this.at(Slot.RingFaults);
  }

  /** Connections that were closed because of what the VMM sent. */
  get connectionFaults(): number {
    return this.at(Slot.ConnectionFaults);
  }

  /** Front-ends that have connected so far. */
  get connections(): number {
    return this.at(Slot.Connections);
  }

  /** Further front-ends that were closed at once. */
  get refusals(): number {
    return this.at(Slot.Refusals);
  }

  /** Passes that ended with a request held for the rate limit. */
  get heldForLimit(): number {
    return this.at(Slot.HeldForLimit);
  }

  /** Passes that ended with a request held for the host's budget. */
  get heldForBudget(): number {
    return this.at(Slot.HeldForBudget);
  }

  /** Passes that ended with a request held for want of entropy. */
  get heldForEntropy(): number {
    return this.at(Slot.HeldForEntropy);
  }

  get isConnected(): boolean {
    return this.at(Slot.Connected) !== 0;
  }

  get ringState(): RingState {
    const state = this.at(Slot.RingState);
    return Object.values(RingState).find((known) => known === state) ?? RingState.Stopped;
  }

  /** Entries of the ring that runs. */
  get ringSize(): number {
    return this.at(Slot.RingSize);
  }

  get hold(): Hold {
    const hold = this.at(Slot.Hold);
    return Object.values(Hold).find((known) => known === hold) ?? Hold.None;
  }

  /** The front-end's process and user; 0 and -1 before the first. */
  get peer(): { readonly pid: number; readonly uid: number } {
    return { pid: this.at(Slot.PeerPid), uid: this.at(Slot.PeerUid) };
  }

  /** Virtio features that the guest negotiated. */
  get features(): bigint {
    return (BigInt(this.at(Slot.FeaturesHigh)) << 32n) | BigInt(this.at(Slot.FeaturesLow));
  }

  get protocolFeatures(): bigint {
    return BigInt(this.at(Slot.ProtocolFeaturesLow));
  }

  get memory(): MemoryFacts {
    return {
      regions: this.at(Slot.MemoryRegions),
      bytes: this.at(Slot.MemoryBytes),
      sealedRegions: this.at(Slot.SealedRegions),
    };
  }

  /** Time in ms that requests were held for the limit or the budget, the hold that lasts included. `nowMs` is CLOCK_MONOTONIC. */
  throttledMs(nowMs: number): number {
    return this.at(Slot.ThrottledMs) + this.lasting(Hold.Limit, nowMs) + this.lasting(Hold.Budget, nowMs);
  }

  /** Time in ms that requests were held for want of entropy, as {@link throttledMs}. */
  starvedMs(nowMs: number): number {
    return this.at(Slot.StarvedMs) + this.lasting(Hold.Entropy, nowMs);
  }

  private lasting(hold: Hold, nowMs: number): number {
    return this.hold === hold ? Math.max(0, nowMs - this.at(Slot.HoldSinceMs)) : 0;
  }

  /** Sampled latencies by bucket of latency.ts; the last one is what no bucket holds. */
  get latencyCounts(): readonly number[] {
    return [...this.values.subarray(LATENCY_AT, SLOTS)];
  }

  get latencySumMs(): number {
    return this.at(Slot.LatencySumMs);
  }

  /** A batch was published. */
  served(requests: number, bytes: number): void {
    this.add(Slot.Requests, requests);
    this.add(Slot.Bytes, bytes);
  }

  /** One sampled pass took so long from wake-up to signal. */
  sampled(latencyMs: number): void {
    this.add(Slot.LatencySumMs, latencyMs);
    const slot = LATENCY_AT + bucketOf(latencyMs);
    this.values[slot] = (this.values[slot] ?? 0) + 1;
  }

  malformedChain(): void {
    this.add(Slot.Malformed, 1);
  }

  ringFault(): void {
    this.add(Slot.RingFaults, 1);
  }

  connectionFault(): void {
    this.add(Slot.ConnectionFaults, 1);
  }

  refusedFrontend(): void {
    this.add(Slot.Refusals, 1);
  }

  connected(pid: number, uid: number): void {
    this.add(Slot.Connections, 1);
    this.seated(pid, uid);
  }

  /** A front-end that another process has accepted is served here. */
  seated(pid: number, uid: number): void {
    this.values[Slot.PeerPid] = pid;
    this.values[Slot.PeerUid] = uid;
    this.values[Slot.Connected] = 1;
  }

  disconnected(): void {
    this.values[Slot.Connected] = 0;
    this.ring(RingState.Stopped, 0);
  }

  negotiated(features: bigint, protocolFeatures: bigint): void {
    this.values[Slot.FeaturesHigh] = Number(BigInt.asUintN(32, features >> 32n));
    this.values[Slot.FeaturesLow] = Number(BigInt.asUintN(32, features));
    this.values[Slot.ProtocolFeaturesLow] = Number(BigInt.asUintN(53, protocolFeatures));
  }

  mapped(memory: MemoryFacts): void {
    this.values[Slot.MemoryRegions] = memory.regions;
    this.values[Slot.MemoryBytes] = memory.bytes;
    this.values[Slot.SealedRegions] = memory.sealedRegions;
  }

  ring(state: RingState, size: number): void {
    this.values[Slot.RingState] = state;
    this.values[Slot.RingSize] = size;
  }

  /** A request is held from now on; while the reason stays, the time goes on. */
  held(hold: Hold, nowMs: number): void {
    if (hold === Hold.Limit) this.add(Slot.HeldForLimit, 1);
    if (hold === Hold.Budget) this.add(Slot.HeldForBudget, 1);
    if (hold === Hold.Entropy) this.add(Slot.HeldForEntropy, 1);
    if (this.at(Slot.Hold) === hold) return;
    this.released(nowMs);
    this.values[Slot.HoldSinceMs] = nowMs;
    this.values[Slot.Hold] = hold;
  }

  /** Nothing is held any more. */
  released(nowMs: number): void {
    const lastedMs = nowMs - this.at(Slot.HoldSinceMs);
    const hold = this.at(Slot.Hold);
    if (hold === Hold.Limit || hold === Hold.Budget) this.add(Slot.ThrottledMs, lastedMs);
    if (hold === Hold.Entropy) this.add(Slot.StarvedMs, lastedMs);
    this.values[Slot.Hold] = Hold.None;
  }
}
