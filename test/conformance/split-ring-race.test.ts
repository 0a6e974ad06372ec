// virtio-v1.3 §2.7.5, row 101 of ARCHITECTURE.md, "Bad input": descriptors that another processor of the guest rewrites between
// the device's check and its use. Each field is fetched once, so nothing outside of a checked buffer is ever written.
//
// Scaled: about 400,000 requests and as many rewrites as one thread makes meanwhile, instead of 10^7 rounds.
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { Mapping } from '../../shared-memory/mapping.js';
import { Desc } from '../support/driver-ring.js';
import type { FlipSetup } from '../support/flipping-driver.js';
import { startRngDaemon } from '../support/rng-daemon.js';
import { MemorySnapshot } from '../support/untouched.js';
import { DATA_BASE, RING_BASE, VirtualMachine } from '../support/virtual-machine.js';

/** Half a page less than 1 MiB: what is written behind the region's end lands in the same page, where it is seen. */
const TAIL_BYTES = 2048;
const FILE_BYTES = 1 << 20;
const BYTES = FILE_BYTES - TAIL_BYTES;
const END = RING_BASE + BigInt(BYTES);
const SIZE = 16;
const LONG = 1024;
const BATCHES = 20_000;

const { path, daemon } = await startRngDaemon(t);

for (const sealed of [true, false]) {
  await t.test(
    `row 101: descriptors rewritten meanwhile, ${sealed ? 'sealed' : 'guarded'} memory`,
    async (t) => {
      const vm = VirtualMachine.start(path, { size: SIZE, bytes: BYTES, sealed });
      t.teardown(() => vm.close());
      const tail = tailOf(vm.ram.fds[0] ?? -1);
      const snapshot = new MemorySnapshot(vm.ram);
      const control = new SharedArrayBuffer(8);
      const setup: FlipSetup = {
        fd: vm.ram.fds[0] ?? -1,
        bytes: FILE_BYTES,
        descOffset: 0,
        count: SIZE,
        addresses: [Number(DATA_BASE), Number(END - 64n), 0x10, Number(END) + 0x1000],
        lengths: [64, LONG, 0xffff_ffff | 0, 0],
        flagWords: [Desc.Write, Desc.Write | Desc.Next | (3 << 16), 0, Desc.Write | (0x7fff << 17)],
        control,
      };
      const worker = new Worker(new URL('../support/flipping-driver.js', import.meta.url), {
        workerData: setup,
      });
      const exited = new Promise((resolve) => worker.once('exit', resolve));
      await new Promise((resolve) => worker.once('online', resolve));

      const lengths = new Map<number, number>();
      const batches = sealed ? BATCHES : BATCHES / 4;
      // On a busy machine the other thread may get its turn late: go on until it has been seen to interfere.
      const interfered = (): boolean => lengths.has(64) && lengths.has(0);
      for (let batch = 0; batch < batches || (!interfered() && batch < 10 * batches); batch++) {
        for (let i = 0; i < SIZE; i++) vm.ring.offer((i + batch) % SIZE);
        vm.ring.publish();
        vm.frontend.kickRing();
        for (const { length } of vm.frontend.waitUsed(vm.ring, SIZE)) {
          lengths.set(length, (lengths.get(length) ?? 0) + 1);
        }
      }
      Atomics.store(new Int32Array(control), 0, 1);
      await exited;

      t.comment(`used lengths: ${JSON.stringify([...lengths])}; ${new Int32Array(control)[1] ?? 0} rewrites`);
      t.ok(interfered(), 'good and malformed requests occurred');
      const { descAddress, end } = vm.ring;
      const allowed = [
        { address: descAddress, length: Number(end - descAddress) },
        { address: DATA_BASE, length: 65536 },
        { address: END - 64n, length: 64 },
      ];
      t.equal(snapshot.firstChange(allowed), undefined, 'only checked buffers were written');
      t.same(tail, Buffer.alloc(TAIL_BYTES), 'nothing behind the end of the region');
      vm.settle();
      t.same(vm.request(), { id: 0, length: 64 }, 'served as before');
      t.ok(daemon.isRunning);
    },
  );
}

/** What lies behind the region in its last page. */
function tailOf(fd: number): Buffer {
  const mapping = Mapping.ofFile(fd, 0, FILE_BYTES, false);
  if (typeof mapping === 'number') throw new Error(`mmap: ${mapping}`);
  return mapping.view(BYTES, TAIL_BYTES);
}
