// A program: VMMs that come, set their device up, read a little and go, one after the other, as fast as it goes. Ends with 0 when every one
// of them was served throughout. Arguments: the socket's path, how many.
import { VirtualMachine } from './virtual-machine.js';

const REQUESTS = 3;
const LENGTH = 64;

const [, , path = '', count = ''] = process.argv;
for (let i = 0; i < Number(count); i++) {
  const vm = VirtualMachine.start(path);
  for (let request = 0; request < REQUESTS; request++) {
    const { length } = vm.request(LENGTH);
    if (length !== LENGTH) throw new Error(`VMM ${i}: expected ${LENGTH} bytes, got ${length}`);
  }
  vm.close();
}
