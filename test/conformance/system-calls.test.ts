// design.md §7: what a request costs in system calls, counted by strace on the data-plane thread. A request of 64 bytes at depth 1
// is one wait and one signal; entropy comes in batches.
//
// Leaves out: time, which no test on a shared machine can promise (test/bench measures it).
import t from 'tap';
import { startRngDaemon } from '../support/rng-daemon.js';
import { attachStrace, dataPlaneThread } from '../support/slow-thread.js';
import { VirtualMachine } from '../support/virtual-machine.js';

const REQUESTS = 2000;
const MOST_CALLS = 2.1;

/** The table of `strace -c`: calls by name. */
function countsOf(table: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const line of table.split('\n')) {
    const match = /^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$/.exec(line);
    if (match !== null) counts.set(match[2] ?? '', Number(match[1]));
  }
  counts.delete('total');
  return counts;
}

await t.test(
  `${REQUESTS} requests of 64 bytes, one after the other: at most ${MOST_CALLS} system calls each`,
  async (t) => {
    const { daemon, path } = await startRngDaemon(t);
    const vm = VirtualMachine.start(path);
    t.teardown(() => vm.close());
    for (let i = 0; i < 500; i++) vm.request();
    vm.settle();
    const tid = await dataPlaneThread(daemon.pid);
    const strace =
      tid === undefined
        ? undefined
        : await attachStrace(t, tid, ['-c', '-U', 'time,total-time,avg-time,calls,errors,name']);
    if (strace === undefined) {
      t.pass('system calls counted', { skip: 'LEFT OUT: strace cannot attach to a thread here' });
      return;
    }
    for (let i = 0; i < REQUESTS; i++) vm.request();
    await strace.detach('SIGINT');
    const counts = countsOf(strace.log.text);
    const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
    t.comment(
      `${(total / REQUESTS).toFixed(3)} a request: ${[...counts].map((entry) => entry.join(' ')).join(', ')}`,
    );
    t.ok((counts.get('write') ?? 0) >= REQUESTS * 0.99, 'every request was counted');
    t.ok(total <= MOST_CALLS * REQUESTS, `${total} system calls`);
    t.ok((counts.get('read') ?? 0) <= REQUESTS / 16, 'one read for a batch of requests');
    t.same(vm.request(), { id: 0, length: 64 });
  },
);
