// A device whose limit and weight are changed while it runs: real loop, ring and memory, with the front-end in this thread.
//
// The front-end waits for no reply, because nobody would answer: the loop turns when the test lets it. Time is real, so
// periods are long enough for nothing to come back by itself.
import { LedgerFile } from '../../daemon/ledger.js';
import t, { type Test } from 'tap';
import { dispose } from '../../daemon/disposal.js';
import { Pools } from '../../daemon/entropy/pools.js';
import { Starvation } from '../../daemon/entropy/starvation.js';
import { EventLoop } from '../../daemon/event-loop.js';
import type { Limit } from '../../daemon/limiter.js';
import { listenOn } from '../../daemon/listening-socket.js';
import { createMark, PeerCalls } from '../../daemon/peer-calls.js';
import { RngDevice } from '../../daemon/rng-device.js';
import { Seat } from '../../daemon/seat.js';
import { SharedBudget } from '../../daemon/shared-budget.js';
import type { Timer } from '../../daemon/timers.js';
import { Fault } from '../../protocol/fault.js';
import { FrontendRequest } from '../../protocol/request.js';
import { DEFAULT_FEATURES } from '../support/frontend.js';
import { KernelSource } from '../support/kernel-source.js';
import { temporaryFolder } from '../support/rng-daemon.js';
import { VirtualMachine } from '../support/virtual-machine.js';

/** Nothing comes back within a test. */
const PERIOD_MS = 3_600_000;

function limitOf(maxBytes: number, burstBytes = 0): Limit {
  return { maxBytes, periodMs: PERIOD_MS, burstBytes };
}

/** Ends EventLoop.run() after a while. */
class Alarm implements Timer {
  dueMs = Infinity;
  private readonly loop: EventLoop;

  constructor(loop: EventLoop) {
    this.loop = loop;
  }

  onDue(): void {
    this.loop.pause();
  }

  onCrash(error: unknown): void {
    throw error;
  }
}

/** Devices of one loop, each with a guest of 64 requests of 64 bytes. */
class Stand {
  readonly loop: EventLoop;
  readonly budget: SharedBudget;
  readonly devices: RngDevice[];
  readonly paths: string[];
  private readonly alarm: Alarm;
  readonly source = new KernelSource();
  private readonly pools = new Pools([this.source], () => undefined);

  constructor(
    folder: string,
    devices: readonly { readonly limit: Limit | undefined; readonly weight: number }[],
    total?: Limit,
  ) {
    this.loop = new EventLoop(0, new PeerCalls(createMark()), () => this.pools.topUp());
    this.alarm = new Alarm(this.loop);
    this.budget = new SharedBudget(total, this.loop.clock, this.loop.timers);
    this.paths = devices.map((_, i) => `${folder}/${i}.sock`);
    this.devices = devices.map(({ limit, weight }, i) => {
      const socket = listenOn(this.paths[i] ?? '', { mode: 0o600, group: undefined });
      if (socket instanceof Fault) throw socket;
      const device = new RngDevice(
        {
          name: `rng${i}`,
          fd: socket.fd,
          connected: false,
          limit,
          weight,
          memory: { memoryPolicy: 'guard', memSlots: 0 },
          entropy: { specs: ['kernel'], mix: false },
          paused: false,
          seats: 1,
          ledger: LedgerFile.create().ledger.address,
        },
        {
          loop: this.loop,
          pools: this.pools,
          starvation: new Starvation(this.loop.timers),
          budget: this.budget,
          log: () => undefined,
          keeping: undefined,
          post: (message) => {
            if (message.kind === 'dispose') dispose(message);
          },
          connected: () => undefined,
          lastConnectionEnded: () => undefined,
        },
      );
      device.open();
      return device;
    });
  }

  /** Connects a guest with all its requests outstanding. */
  start(device: number, size = 64): VirtualMachine {
    const vm = VirtualMachine.connect(this.paths[device] ?? '', { size });
    const { frontend, ring, ram } = vm;
    vm.offerAll(64);
    frontend.send({ request: FrontendRequest.SetOwner });
    frontend.send({ request: FrontendRequest.SetFeatures, features: DEFAULT_FEATURES });
    frontend.send({ request: FrontendRequest.SetMemTable, regions: ram.regions }, { fds: ram.fds });
    frontend.send({ request: FrontendRequest.SetVringNum, index: 0, num: ring.size });
    frontend.send({
      request: FrontendRequest.SetVringAddr,
      index: 0,
      flags: 0,
      descUserAddr: ram.userAddr(ring.descAddress),
      usedUserAddr: ram.userAddr(ring.usedAddress),
      availUserAddr: ram.userAddr(ring.availAddress),
      logGuestAddr: 0n,
    });
    frontend.send({ request: FrontendRequest.SetVringKick, index: 0, noFd: false }, { fds: [frontend.kick] });
    frontend.send({ request: FrontendRequest.SetVringEnable, index: 0, num: 1 });
    return vm;
  }

  /** Lets the loop turn for a moment. */
  turn(ms = 20): void {
    this.loop.timers.armIn(this.alarm, ms);
    this.loop.run();
  }

  close(): void {
    for (const device of this.devices) device.close();
    this.pools.close();
    this.loop.close();
  }
}

/** Bytes of the answers that came since the last call. */
function taken({ ring }: VirtualMachine): number {
  let bytes = 0;
  for (let used = ring.take(); used !== undefined; used = ring.take()) bytes += used.length;
  return bytes;
}

t.test('a held request is looked at again at once when the limit is raised, lowered or removed', (t) => {
  const stand = new Stand(temporaryFolder(t), [{ limit: limitOf(100), weight: 1 }]);
  const [device] = stand.devices;
  const vm = stand.start(0);
  stand.turn();
  t.equal(taken(vm), 100);
  device?.setLimit(limitOf(300));
  stand.turn();
  t.equal(taken(vm), 200, 'raised: the difference');
  device?.setLimit(limitOf(200));
  stand.turn();
  t.equal(taken(vm), 0, 'lowered: nothing');
  device?.setLimit(limitOf(200, 50));
  stand.turn();
  t.equal(taken(vm), 50, 'a burst, once');
  device?.setLimit(limitOf(200, 50));
  stand.turn();
  t.equal(taken(vm), 0, 'and not again');
  device?.setLimit(undefined);
  stand.turn();
  t.ok(taken(vm) > 64 * 50, 'no limit: all that was asked for');
  t.equal(stand.loop.timers.timeoutMs(), -1, 'and no timer is left');
  device?.setLimit(limitOf(1000));
  vm.offerAll(64);
  vm.frontend.kickRing();
  stand.turn();
  t.equal(taken(vm), 0, 'a limit again: what was delivered without one counts');
  vm.close();
  stand.turn();
  t.equal(stand.loop.timers.timeoutMs(), -1, 'the guest has gone, and its timer');
  stand.close();
  t.end();
});

/** A source runs dry within a request of 64 bytes, and has the rest a moment later: the length of each answer. */
function answersOfDrySource(t: Test, limit: Limit | undefined, total?: Limit): number[] {
  const stand = new Stand(temporaryFolder(t), [{ limit, weight: 1 }], total);
  const dry = Array.from({ length: 1000 }, () => 0);
  stand.source.bounds = dry;
  const vm = stand.start(0, 2);
  stand.turn();
  t.equal(vm.ring.take(), undefined, 'held');
  stand.source.bounds = [40, 0, 24, ...dry];
  stand.turn(400);
  const lengths: number[] = [];
  for (let used = vm.ring.take(); used !== undefined; used = vm.ring.take()) lengths.push(used.length);
  vm.close();
  stand.close();
  return lengths;
}

t.test('a request that was begun waits for its rest; under a limit what is there is handed over', (t) => {
  t.same(answersOfDrySource(t, undefined), [64]);
  t.same(answersOfDrySource(t, limitOf(1000)), [40, 24]);
  t.same(answersOfDrySource(t, undefined, limitOf(1000)), [40, 24]);
  t.end();
});

t.test('quota and burst belong to the device: the next front-end finds what the last one left', (t) => {
  const stand = new Stand(temporaryFolder(t), [{ limit: limitOf(640, 128), weight: 1 }]);
  const first = stand.start(0, 4);
  stand.turn();
  t.equal(taken(first), 256);
  first.close();
  stand.turn();
  const second = stand.start(0);
  stand.turn();
  t.equal(taken(second), 640 + 128 - 256);
  second.close();
  stand.turn();
  const third = stand.start(0);
  stand.turn();
  t.equal(taken(third), 0);
  third.close();
  stand.close();
  t.end();
});

t.test('weights, and a new budget, take effect while requests are held', (t) => {
  const devices = [
    { limit: undefined, weight: 1 },
    { limit: undefined, weight: 1 },
  ];
  const stand = new Stand(temporaryFolder(t), devices, limitOf(1600));
  const vms = devices.map((_, i) => stand.start(i));
  stand.turn();
  t.equal(
    vms.reduce((sum, vm) => sum + taken(vm), 0),
    1600,
    'the budget is spent, and both wait',
  );
  stand.devices[1]?.setWeight(3);
  // Half of a budget of 5120 may go at once; 1600 are gone.
  stand.budget.change(limitOf(5120));
  stand.turn();
  const [one = NaN, three = NaN] = vms.map(taken);
  t.comment(`${one} and ${three} bytes`);
  t.ok(one + three >= 2560 - 1600, 'at once');
  t.ok(one + three <= 5120 - 1600);
  t.ok(Math.abs(three - 3 * one) <= 3 * 64 + 64, 'by weight, within a quantum');
  stand.devices[0]?.close();
  stand.budget.change(undefined);
  stand.turn();
  t.ok((vms[1]?.ring.deviceUsedIndex ?? 0) === 64, 'without a budget all that was asked for');
  t.equal(stand.loop.timers.timeoutMs(), -1);
  for (const vm of vms) vm.close();
  stand.close();
  t.end();
});

t.test('a seat that has room at the second look: the front-end that waits is accepted', (t) => {
  const stand = new Stand(temporaryFolder(t), [{ limit: undefined, weight: 1 }]);
  const first = stand.start(0);
  stand.turn();
  first.close();
  stand.turn();
  // The main thread lets go between any two looks of the data plane; this is a fake of that moment.
  let looks = 0;
  const isFull = Object.getOwnPropertyDescriptor(Seat.prototype, 'isFull');
  Object.defineProperty(Seat.prototype, 'isFull', { configurable: true, get: () => looks++ === 0 });
  const second = stand.start(0);
  stand.turn();
  if (isFull !== undefined) Object.defineProperty(Seat.prototype, 'isFull', isFull);
  t.ok(looks > 0, 'it was full once');
  t.equal(second.ring.deviceUsedIndex, 64, 'served');
  second.close();
  stand.close();
  t.end();
});
