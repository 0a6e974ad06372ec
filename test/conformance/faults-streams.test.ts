// Standard output and standard error that are full, closed or without a reader: the daemon serves on, and ends in good order.
// Rows F36 and F37 of ARCHITECTURE.md, "Faults".
//
// Leaves out: the count of dropped lines (test/daemon/log).
import { openSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { asFd, closeFd, type Fd, setNonBlocking } from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import { openPipe } from '../support/fd-kinds.js';
import { temporaryFolder } from '../support/rng-daemon.js';
import { startProcess, waitUntilLive } from '../support/started-process.js';
import { VirtualMachine } from '../support/virtual-machine.js';

/** The write end of a pipe that is full to the last byte; the read end stays open and unread. */
function fullPipe(): readonly [Fd, Fd] {
  const [readEnd, writeEnd] = openPipe();
  // Filled over another description of the same pipe, so that the daemon's own stays a blocking one.
  const filler = asFd(openSync(`/proc/self/fd/${writeEnd}`, 'w'));
  setNonBlocking(filler);
  const page = new NativeMemory(4096);
  while (libc.write(filler, page.address, 4096) > 0);
  closeFd(filler);
  return [readEnd, writeEnd];
}

/** A pipe without a reader. */
function brokenPipe(): readonly [Fd, Fd] {
  const [readEnd, writeEnd] = openPipe();
  closeFd(readEnd);
  return [writeEnd, writeEnd];
}

function fullDisk(): readonly [Fd, Fd] {
  const fd = asFd(openSync('/dev/full', 'w'));
  return [fd, fd];
}

const STREAMS = {
  'a full pipe': fullPipe,
  'a pipe without a reader': brokenPipe,
  'a full disk': fullDisk,
} as const;

for (const stream of ['stdout', 'stderr', 'both'] as const) {
  for (const [what, open] of Object.entries(STREAMS)) {
    await t.test(`F36, F37: ${stream} on ${what}: serves on, and ends in good order`, async (t) => {
      const folder = temporaryFolder(t);
      const fds = open();
      const [, fd] = fds;
      // Without --socket-path it greets on standard output.
      const { child, exited } = startProcess(t, [], {
        stdio: ['ignore', stream === 'stderr' ? 'ignore' : fd, stream === 'stdout' ? 'ignore' : fd],
        env: { XDG_RUNTIME_DIR: folder },
      });
      const path = join(folder, 'vhost-rngd', 'rng.sock');
      await waitUntilLive(path);
      // Each connection is two lines of the log.
      for (let i = 0; i < 100; i++) {
        const vm = VirtualMachine.start(path);
        if (vm.request().length !== 64) t.fail('not served');
        vm.close();
      }
      child.kill('SIGHUP');
      child.kill('SIGTERM');
      t.match(await exited, { code: 0, signal: null });
      for (const one of new Set(fds)) closeFd(one);
    });
  }
}

await t.test('F36: both closed from the start', async (t) => {
  const path = join(temporaryFolder(t), 'a.sock');
  const { child, exited } = startProcess(t, [`--socket-path=${path}`], {
    stdio: ['ignore', 'ignore', 'ignore'],
  });
  await waitUntilLive(path);
  const vm = VirtualMachine.start(path);
  t.same(vm.request(), { id: 0, length: 64 });
  vm.close();
  child.kill('SIGTERM');
  t.match(await exited, { code: 0 });
});
