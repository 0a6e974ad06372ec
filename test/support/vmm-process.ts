// A VMM in a process of its own, to be killed or stopped: `PATH DEPTH` connects a machine to a device, keeps DEPTH requests of
// 64 bytes offered, and says "ready" when all is set up; then a line with the count of completed requests as often as it changes.
import { Desc } from './driver-ring.js';
import { DATA_BASE, VirtualMachine } from './virtual-machine.js';

const [path = '', depth = '1'] = process.argv.slice(2);
const vm = VirtualMachine.start(path);
for (let i = 0; i < Number(depth); i++) {
  vm.ring.setDescriptor(i, { address: DATA_BASE + BigInt(64 * i), length: 64, flags: Desc.Write });
  vm.ring.offer(i);
}
vm.ring.publish();
vm.frontend.kickRing();
process.stdout.write('ready\n');

let completed = 0;
setInterval(() => {
  const before = completed;
  for (let used = vm.ring.take(); used !== undefined; used = vm.ring.take()) {
    completed++;
    vm.ring.offer(used.id);
  }
  if (completed === before) return;
  vm.ring.publish();
  vm.frontend.kickRing();
  process.stdout.write(`completed ${completed}\n`);
}, 5);
