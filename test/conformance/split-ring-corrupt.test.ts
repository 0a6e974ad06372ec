// virtio-v1.3 §2.7.6 and §2.7.13.3: a ring that is itself wrong. It stops, err is signalled once, the connection and all other
// machines go on, and each documented way brings the ring back. Rows 85 and 100 of ARCHITECTURE.md, "Bad input".
//
// Leaves out: chains that are wrong in a sound ring (split-ring), memory that vanishes (faults).
import t, { type Test } from 'tap';
import { FrontendRequest } from '../../protocol/request.js';
import { DEFAULT_FEATURES, Frontend } from '../support/frontend.js';
import { startRngDaemon } from '../support/rng-daemon.js';
import { MemorySnapshot } from '../support/untouched.js';
import { DATA_BASE, VirtualMachine } from '../support/virtual-machine.js';

const SIZE = 16;

/** How a driver breaks its ring, with one request pending in front of the damage or none. */
const DAMAGES: Readonly<Record<string, (vm: VirtualMachine) => void>> = {
  [`row 85: avail.idx jumps by ${SIZE + 1}`]: (vm) => jump(vm, SIZE + 1),
  'row 85: avail.idx jumps by 32768': (vm) => jump(vm, 32768),
  'row 85: avail.idx goes back by 1': (vm) => jump(vm, -1),
  'row 85: avail.idx goes back by 2': (vm) => jump(vm, -2),
  [`a head of ${SIZE}, one more than there is`]: (vm) => offerHead(vm, SIZE),
  'a head of 65535': (vm) => offerHead(vm, 0xffff),
};

function jump(vm: VirtualMachine, by: number): void {
  Atomics.store(vm.ring.avail, 1, (vm.ring.availIndex + by) & 0xffff);
}

function offerHead(vm: VirtualMachine, head: number): void {
  vm.ring.offer(head);
  vm.ring.publish();
  vm.ring.availIndex = (vm.ring.availIndex - 1) & 0xffff;
}

/** How a front-end brings a stopped ring back, once the driver has put it in order. */
const RECOVERIES: Readonly<Record<string, (vm: VirtualMachine) => Frontend>> = {
  'GET_VRING_BASE and a new start': ({ frontend, ram, ring }) => {
    frontend.startRing(ram, ring, frontend.getVringBase());
    return frontend;
  },
  'RESET_DEVICE and a new start': ({ frontend, ram, ring }) => {
    frontend.expectOk({ request: FrontendRequest.ResetDevice });
    frontend.expectOk({ request: FrontendRequest.SetFeatures, features: DEFAULT_FEATURES });
    frontend.startRing(ram, ring, ring.availIndex);
    return frontend;
  },
  SET_VRING_ADDR: ({ frontend, ram, ring }) => {
    frontend.setVringAddr(ram, ring);
    return frontend;
  },
  SET_VRING_KICK: ({ frontend }) => {
    frontend.expectOk({ request: FrontendRequest.SetVringKick, index: 0, noFd: false }, [frontend.kick]);
    return frontend;
  },
};

const { path, paths, daemon } = await startRngDaemon(t, { devices: 3 });
const other = VirtualMachine.start(paths[1] ?? '');
t.teardown(() => other.close());

function checkStopped(t: Test, vm: VirtualMachine): void {
  const { frontend, ring } = vm;
  t.equal(frontend.waitErr(), 1, 'err is signalled once');
  const snapshot = new MemorySnapshot(vm.ram);
  for (let i = 0; i < 3; i++) frontend.kickRing();
  t.doesNotThrow(() => vm.settle(), 'the connection lives');
  t.equal(frontend.waitErr(0), 0, 'err is not signalled again');
  t.equal(ring.take(), undefined, 'nothing more is completed');
  t.equal(snapshot.firstChange([]), undefined, 'guest memory stays as it is');
  t.same(other.request(), { id: 0, length: 64 }, 'another machine is served');
}

for (const sealed of [true, false]) {
  for (const [damage, breakRing] of Object.entries(DAMAGES)) {
    for (const [recovery, recover] of Object.entries(RECOVERIES)) {
      const memory = sealed ? 'sealed' : 'guarded';
      await t.test(`${damage}; ${memory} memory; back by ${recovery}`, (t) => {
        const vm = VirtualMachine.start(path, { size: SIZE, sealed, index: 65534 });
        for (let i = 0; i < 3; i++) t.same(vm.request(), { id: 0, length: 64 });
        breakRing(vm);
        vm.frontend.kickRing();
        checkStopped(t, vm);
        vm.ring.publish();
        recover(vm);
        t.same(vm.request(100), { id: 0, length: 100 }, 'served again');
        t.equal(vm.frontend.waitErr(0), 0);
        vm.close();
        t.end();
      });
    }
    await t.test(`${damage}; back by a new connection`, (t) => {
      const vm = VirtualMachine.start(path, { size: SIZE, sealed });
      vm.request();
      breakRing(vm);
      vm.frontend.kickRing();
      checkStopped(t, vm);
      vm.ring.publish();
      vm.frontend.close();
      const again = Frontend.connect(path);
      again.setUp(vm.ram, vm.ring);
      vm.ring.request(1, DATA_BASE, 64);
      again.kickRing();
      t.same(again.waitUsed(vm.ring, 1), [{ id: 1, length: 64 }]);
      again.close();
      vm.ram.close();
      t.end();
    });
  }
}

t.test('a request in front of a bad head is served, then the ring stops', (t) => {
  const vm = VirtualMachine.start(path, { size: SIZE });
  vm.ring.setDescriptor(3, { address: DATA_BASE, length: 64, flags: 2 });
  vm.ring.offer(3);
  vm.ring.offer(SIZE);
  vm.ring.publish();
  vm.frontend.kickRing();
  t.equal(vm.frontend.waitErr(), 1);
  t.same(vm.ring.take(), { id: 3, length: 64 });
  t.equal(vm.ring.take(), undefined);
  t.equal(vm.frontend.getVringBase(), 1, 'the base is the first request that was not served');
  vm.close();
  t.end();
});

t.test('five faults on one connection: five signals on err, one line in the log', async (t) => {
  const vm = VirtualMachine.start(paths[2] ?? '', { size: SIZE });
  for (let i = 0; i < 5; i++) {
    jump(vm, 100);
    vm.frontend.kickRing();
    t.equal(vm.frontend.waitErr(), 1);
    vm.ring.publish();
    vm.frontend.setVringAddr(vm.ram, vm.ring);
    t.same(vm.request(), { id: 0, length: 64 });
  }
  vm.close();
  await daemon.waitForLog(/rng2: .*\[disconnected\]/, 5000);
  const lines = daemon.log.match(/rng2: .*\[ring_corrupt\]/g) ?? [];
  t.equal(lines.length, 1);
});

/** Row 100: where a buffer lies on the ring itself; what comes of the ring then is the guest's own harm. */
const OVERLAPS: Readonly<Record<string, (vm: VirtualMachine) => { address: bigint; length: number }>> = {
  'the descriptor table': ({ ring }) => ({ address: ring.descAddress, length: SIZE * 16 }),
  'its own descriptor': ({ ring }) => ({ address: ring.descAddress, length: 16 }),
  'the available ring': ({ ring }) => ({ address: ring.availAddress, length: 4 + 2 * SIZE + 2 }),
  'the used ring': ({ ring }) => ({ address: ring.usedAddress, length: 4 + 8 * SIZE + 2 }),
  'all of the ring': ({ ring }) => ({
    address: ring.descAddress,
    length: Number(ring.end - ring.descAddress),
  }),
};

for (const [what, extentOf] of Object.entries(OVERLAPS)) {
  for (const sealed of [true, false]) {
    await t.test(
      `row 100, virtio-v1.3 §2.7.5: a buffer on ${what}, 20 times, ${sealed ? 'sealed' : 'guarded'}`,
      (t) => {
        for (let round = 0; round < 20; round++) {
          const vm = VirtualMachine.start(path, { size: SIZE, sealed });
          const { address, length } = extentOf(vm);
          const outside = { address: vm.ring.end, length: 0x10000 };
          const before = Buffer.from(vm.ram.view(outside.address, outside.length));
          vm.ring.request(0, address, length);
          for (let kick = 0; kick < 3; kick++) {
            vm.frontend.kickRing();
            vm.settle();
          }
          if (!before.equals(vm.ram.view(outside.address, outside.length)))
            t.fail('bytes outside were written');
          vm.frontend.getVringBase();
          const fresh = vm.freshRing();
          vm.frontend.startRing(vm.ram, fresh, 0);
          fresh.request(5, DATA_BASE, 64);
          vm.frontend.kickRing();
          const [served] = vm.frontend.waitUsed(fresh, 1);
          if (served?.id !== 5 || served.length !== 64) t.fail('the ring did not come back');
          vm.close();
        }
        t.same(other.request(), { id: 0, length: 64 }, 'another machine is served');
        t.ok(daemon.isRunning);
        t.end();
      },
    );
  }
}
