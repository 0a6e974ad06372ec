// virtio-v1.3 §2.7.7, §2.7.8 and §2.7.10: when the guest is told of completed requests, when it must tell of new ones,
// and indices that wrap. Rows 103 to 105 of ARCHITECTURE.md, "Bad input".
//
// Leaves out: busy polling, which only changes when kicks are wanted.
import t from 'tap';
import { maskOf, VirtioFeature } from '../../protocol/features.js';
import { FrontendRequest } from '../../protocol/request.js';
import { Desc } from '../support/driver-ring.js';
import { DEFAULT_FEATURES, Frontend } from '../support/frontend.js';
import { startRngDaemon } from '../support/rng-daemon.js';
import { MemorySnapshot } from '../support/untouched.js';
import { DATA_BASE, type MachineOptions, VirtualMachine } from '../support/virtual-machine.js';

const EVENT_IDX = DEFAULT_FEATURES | maskOf(VirtioFeature.EVENT_IDX);
const NOTIFY_ON_EMPTY = DEFAULT_FEATURES | maskOf(VirtioFeature.NOTIFY_ON_EMPTY);
const AVAIL_F_NO_INTERRUPT = 1;

const { path, daemon } = await startRngDaemon(t);

let current: VirtualMachine | undefined;
t.teardown(() => current?.close());

/** A machine, in the place of the last one, whose first signal, which every start of a ring owes, has been taken. */
function started(options: MachineOptions = {}): VirtualMachine {
  current?.close();
  const vm = VirtualMachine.start(path, options);
  current = vm;
  vm.settle();
  vm.frontend.waitCall(0);
  return vm;
}

/** Serves `count` requests in one batch; the signals that came of it. */
function batch(vm: VirtualMachine, count: number): number {
  for (let i = 0; i < count; i++) {
    vm.ring.setDescriptor(i, { address: DATA_BASE + BigInt(64 * i), length: 64, flags: Desc.Write });
    vm.ring.offer(i);
  }
  vm.ring.publish();
  vm.frontend.kickRing();
  vm.settle();
  for (let i = 0; i < count; i++) {
    const { id, length } = vm.ring.take() ?? {};
    if (id !== i || length !== 64) throw new Error(`request ${i} came back as ${id}, ${length} bytes`);
  }
  return vm.frontend.waitCall(0);
}

t.test('virtio-v1.3 §2.7.7: one signal for a batch', (t) => {
  const vm = started();
  for (const count of [1, 2, 16]) t.equal(batch(vm, count), 1);
  t.end();
});

t.test('virtio-v1.3 §2.7.7.1: NO_INTERRUPT without EVENT_IDX: no signal while it is set', (t) => {
  const vm = started();
  vm.ring.setAvailFlags(AVAIL_F_NO_INTERRUPT);
  for (let i = 0; i < 5; i++) t.equal(batch(vm, 3), 0);
  vm.ring.setAvailFlags(0);
  t.equal(batch(vm, 1), 1);
  t.end();
});

t.test('virtio-v1.3 §2.7.7.1: other bits of the flags mean nothing', (t) => {
  const vm = started();
  vm.ring.setAvailFlags(0xfffe);
  t.equal(batch(vm, 1), 1);
  t.end();
});

t.test('virtio-v1.3 §6.3 (legacy): NOTIFY_ON_EMPTY signals an empty ring in spite of NO_INTERRUPT', (t) => {
  const vm = started({ features: NOTIFY_ON_EMPTY });
  vm.ring.setAvailFlags(AVAIL_F_NO_INTERRUPT);
  for (let i = 0; i < 3; i++) t.equal(batch(vm, 2), 1);
  t.end();
});

t.test('row 103, virtio-v1.3 §2.7.7.1: with EVENT_IDX the flag is ignored, used_event alone decides', (t) => {
  const vm = started({ features: EVENT_IDX });
  for (const flags of [0, AVAIL_F_NO_INTERRUPT, 0xffff]) {
    vm.ring.setAvailFlags(flags);
    vm.ring.setUsedEvent(vm.ring.usedIndex);
    t.equal(batch(vm, 1), 1, `flags ${flags}, used_event reached`);
    vm.ring.setUsedEvent((vm.ring.usedIndex - 1) & 0xffff);
    t.equal(batch(vm, 1), 0, `flags ${flags}, used_event passed before`);
    vm.ring.setUsedEvent((vm.ring.usedIndex + 1) & 0xffff);
    t.equal(batch(vm, 1), 0, `flags ${flags}, used_event is the next one`);
    t.equal(batch(vm, 1), 1, `flags ${flags}, and now it is reached`);
  }
  t.end();
});

t.test(
  'row 103, virtio-v1.3 §2.7.7.2: 2,000 batches with random used_event, against vring_need_event',
  (t) => {
    for (const sealed of [true, false]) {
      const vm = started({ features: EVENT_IDX, index: 65000, sealed });
      for (let round = 0; round < 1000; round++) {
        const count = 1 + Math.floor(Math.random() * 8);
        const old = vm.ring.usedIndex;
        const near = Math.random() < 0.7;
        const event =
          (near ? old - 3 + Math.floor(Math.random() * 14) : Math.floor(Math.random() * 65536)) & 0xffff;
        vm.ring.setUsedEvent(event);
        const now = (old + count) & 0xffff;
        const expected = ((now - event - 1) & 0xffff) < ((now - old) & 0xffff) ? 1 : 0;
        const got = batch(vm, count);
        if (got !== expected) t.equal(got, expected, `used.idx ${old} to ${now}, used_event ${event}`);
      }
      t.equal(vm.frontend.waitErr(0), 0);
    }
    t.end();
  },
);

t.test('row 104: kicks with nothing available: no completion, no call, not one byte', (t) => {
  for (const features of [DEFAULT_FEATURES, EVENT_IDX, NOTIFY_ON_EMPTY]) {
    const vm = started({ features });
    batch(vm, 1);
    const snapshot = new MemorySnapshot(vm.ram);
    for (let i = 0; i < 100; i++) {
      vm.frontend.kickRing();
      if (i % 10 === 0) vm.settle();
    }
    vm.settle();
    t.equal(vm.frontend.waitCall(0), 0);
    t.equal(vm.ring.take(), undefined);
    t.equal(snapshot.firstChange([]), undefined);
  }
  t.end();
});

t.test('row 104: what is available before the ring starts is served without a kick', (t) => {
  for (const features of [DEFAULT_FEATURES, EVENT_IDX]) {
    current?.close();
    const vm = VirtualMachine.connect(path);
    current = vm;
    vm.offerAll(64);
    vm.frontend.setUp(vm.ram, vm.ring, { features, base: 0 });
    const served = vm.frontend.waitUsed(vm.ring, vm.ring.size);
    t.ok(served.every(({ id, length }, i) => id === i && length === 64));
  }
  t.end();
});

t.test(
  'design §6 rule 3: call is signalled once after SET_VRING_CALL, for what a dead daemon may have left',
  (t) => {
    const vm = started();
    batch(vm, 1);
    vm.ring.setAvailFlags(AVAIL_F_NO_INTERRUPT);
    vm.frontend.expectOk({ request: FrontendRequest.SetVringCall, index: 0, noFd: false }, [
      vm.frontend.call,
    ]);
    vm.settle();
    t.equal(vm.frontend.waitCall(0), 1);
    vm.frontend.close();
    const again = Frontend.connect(path);
    again.setUp(vm.ram, vm.ring);
    t.ok(again.waitCall() >= 1, 'so it is after a new connection');
    again.close();
    t.end();
  },
);

t.test(
  'virtio-v1.3 §2.7.10: a driver that kicks only when it is asked to loses no request, 2,000 in turn',
  (t) => {
    for (const features of [DEFAULT_FEATURES, EVENT_IDX]) {
      const eventIdx = features === EVENT_IDX;
      const vm = started({ features, index: 65500 });
      let kicks = 0;
      for (let i = 0; i < 1000; i++) {
        vm.ring.setUsedEvent(vm.ring.usedIndex);
        vm.ring.request(i % vm.ring.size, DATA_BASE, 64);
        if (vm.ring.wantsKick(eventIdx)) {
          kicks++;
          vm.frontend.kickRing();
        }
        vm.frontend.waitUsed(vm.ring, 1);
      }
      t.ok(kicks > 0, `${kicks} kicks`);
    }
    t.end();
  },
);

t.test(
  'row 105, virtio-v1.3 §2.7.6: indices wrap three times, 196,608 requests in full batches of 1,024',
  (t) => {
    const vm = started({ size: 1024, features: EVENT_IDX });
    const { ring, frontend } = vm;
    for (let i = 0; i < ring.size; i++) {
      ring.setDescriptor(i, { address: DATA_BASE + BigInt(i * 16), length: 1 + (i % 16), flags: Desc.Write });
    }
    let wrong = 0;
    for (let turn = 0; turn < (3 * 65536) / ring.size; turn++) {
      for (let i = 0; i < ring.size; i++) ring.offer((i * 7 + turn) % ring.size);
      ring.setUsedEvent((ring.usedIndex + ring.size - 1) & 0xffff);
      ring.publish();
      frontend.kickRing();
      frontend.waitUsed(ring, ring.size).forEach(({ id, length }, i) => {
        const head = (i * 7 + turn) % ring.size;
        if (id !== head || length !== 1 + (head % 16)) wrong++;
      });
    }
    t.equal(wrong, 0, 'each came back in order with its own length');
    t.equal(ring.deviceUsedIndex, 0, 'three full turns');
    t.equal(frontend.getVringBase(), 0);
    t.equal(frontend.waitErr(0), 0);
    t.end();
  },
);

t.test('row 105: rings that start at each index around the wrap', (t) => {
  for (const index of [0, 1, 32767, 32768, 65520, 65534, 65535]) {
    for (const sealed of [true, false]) {
      const vm = started({ index, sealed, features: EVENT_IDX });
      for (let i = 0; i < 40; i++) t.same(vm.request(64, DATA_BASE, i % 16), { id: i % 16, length: 64 });
      t.equal(vm.frontend.getVringBase(), (index + 40) & 0xffff);
    }
  }
  t.end();
});

t.test('the daemon lives', (t) => {
  t.ok(daemon.isRunning);
  t.end();
});
