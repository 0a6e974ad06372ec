// `node dist/test/bench/counters.js`: what counting costs on the data path, measured on this run.
//
// A ring, its service and the driver's end of it in one thread, without a system call but the refill's: the most that counting can
// weigh. The same service with counters that count nothing runs in turn with it, round by round; medians are printed.
import { SeatCounters } from '../../daemon/counters.js';
import { EntropyPool } from '../../daemon/entropy/pool.js';
import { Starvation } from '../../daemon/entropy/starvation.js';
import { EventLoop } from '../../daemon/event-loop.js';
import { LimitTurns } from '../../daemon/limit-turns.js';
import { Limiter } from '../../daemon/limiter.js';
import { createMark, PeerCalls } from '../../daemon/peer-calls.js';
import { PeerDisposal } from '../../daemon/peer-disposal.js';
import { RingService } from '../../daemon/ring-service.js';
import { SharedBudget } from '../../daemon/shared-budget.js';
import { Fault } from '../../protocol/fault.js';
import { asFrontendVirtAddr, GuestMemory, type RegionPlace } from '../../shared-memory/guest-memory.js';
import { openRingMemory, ringBytes } from '../../shared-memory/ring-memory.js';
import { SplitVirtqueue } from '../../shared-memory/split-virtqueue.js';
import { Desc, DriverRing } from '../support/driver-ring.js';
import { GuestRam } from '../support/guest-ram.js';
import { KernelSource } from '../support/kernel-source.js';

const ROUNDS = 41;
const PASSES = 20_000;
const RING_BASE = 0x10000n;
const DATA_BASE = 0x40000n;

/** Counts nothing. */
class NoCounters extends SeatCounters {
  override served(): void {
    // What is measured is that this does nothing.
  }

  override sampled(): void {
    // As above.
  }
}

/** A running ring with `depth` requests of 64 bytes in each pass. */
class Bench {
  readonly nsPerRequest: number[] = [];
  private readonly ring: DriverRing;
  private readonly service: RingService;
  private readonly depth: number;

  constructor(counters: SeatCounters, depth: number) {
    this.depth = depth;
    const ram = new GuestRam();
    this.ring = new DriverRing(ram, RING_BASE, 16);
    const memory = GuestMemory.map(ram.regions, ram.passedFds(), 'guard');
    if (memory instanceof Fault) throw memory;
    const place = (address: bigint, length: number): RegionPlace => {
      const found = memory.findFrontend(asFrontendVirtAddr(ram.userAddr(address)), length);
      if (found === undefined) throw new Error('the ring is not covered');
      return found;
    };
    const { size, descAddress, availAddress, usedAddress } = this.ring;
    const places = {
      descTable: place(descAddress, ringBytes.descTable(size)),
      availRing: place(availAddress, ringBytes.availRing(size)),
      usedRing: place(usedAddress, ringBytes.usedRing(size)),
    };
    const features = { indirectDesc: true, eventIdx: true, notifyOnEmpty: false };
    const queue = new SplitVirtqueue(size, openRingMemory(places, size), memory, { base: 0, features });
    const loop = new EventLoop(0, new PeerCalls(createMark()), () => undefined);
    const limiter = new Limiter(undefined, loop.clock);
    const context = {
      loop,
      pool: new EntropyPool({ sources: [new KernelSource()], mixedWith: undefined }, () => undefined),
      starvation: new Starvation(loop.timers),
      limiter,
      turns: new LimitTurns(loop.timers, limiter),
      share: new SharedBudget(undefined, loop.clock, loop.timers).newShare(1),
      counters,
      owner: 1,
      disposal: new PeerDisposal(1, () => undefined),
      paused: false,
    };
    this.service = new RingService(queue, context, {
      fault: (fault) => {
        throw fault;
      },
      bug: (error) => {
        throw error;
      },
    });
    for (let i = 0; i < size; i++)
      this.ring.setDescriptor(i, { address: DATA_BASE + BigInt(64 * i), length: 64, flags: Desc.Write });
  }

  run(): void {
    const { ring, service, depth } = this;
    const startNs = process.hrtime.bigint();
    for (let pass = 0; pass < PASSES; pass++) {
      for (let i = 0; i < depth; i++) ring.offer(i);
      ring.publish();
      service.servePass();
      for (let i = 0; i < depth; i++) if (ring.take()?.length !== 64) throw new Error('not served');
    }
    this.nsPerRequest.push(Number(process.hrtime.bigint() - startNs) / (PASSES * depth));
  }
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN;
}

process.stdout.write(
  `${ROUNDS} rounds of ${PASSES} passes, in turn; ns for a request of 64 bytes, both ends of the ring in it\n`,
);
for (const depth of [1, 16]) {
  const counted = new Bench(new SeatCounters(), depth);
  const uncounted = new Bench(new NoCounters(), depth);
  for (let round = 0; round < ROUNDS; round++)
    for (const bench of round % 2 === 0 ? [counted, uncounted] : [uncounted, counted]) bench.run();
  const differences = counted.nsPerRequest.map((ns, i) => ns - (uncounted.nsPerRequest[i] ?? NaN));
  process.stdout.write(
    `depth ${String(depth).padEnd(2)}  counted ${median(counted.nsPerRequest).toFixed(1)}  not counted ${median(uncounted.nsPerRequest).toFixed(1)}  ` +
      `median of the differences ${median(differences).toFixed(1)}\n`,
  );
}
