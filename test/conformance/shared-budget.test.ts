// design §9: the budget of all devices, and limits that no reconnect renews, on the real daemon.
//
// Leaves out: the arithmetic, weights and changes (test/daemon/shared-budget, limiter, rng-device).
import t from 'tap';
import { FrontendRequest } from '../../protocol/request.js';
import { startRngDaemon } from '../support/rng-daemon.js';
import { DATA_BASE, VirtualMachine } from '../support/virtual-machine.js';

const PERIOD_MS = 250;
const TOTAL_BYTES = 32_768;
const BUDGET = [`--total-max-bytes=${TOTAL_BYTES}`, `--total-period=${PERIOD_MS}`];

/** A guest that asks again for whatever it was given: `size` requests of `length` bytes outstanding. */
class AskingGuest {
  readonly vm: VirtualMachine;
  bytes = 0;
  answers = 0;
  empty = 0;

  constructor(path: string, size: number, length: number) {
    this.vm = VirtualMachine.start(path, { size, bytes: 4 << 20 });
    this.vm.offerAll(length);
    this.vm.frontend.kickRing();
  }

  /** Takes what was answered and asks for as much again. */
  turn(): void {
    const { ring, frontend } = this.vm;
    const before = this.answers;
    for (let used = ring.take(); used !== undefined; used = ring.take()) {
      this.bytes += used.length;
      this.answers++;
      if (used.length === 0) this.empty++;
      ring.offer(used.id);
    }
    if (this.answers === before) return;
    ring.publish();
    frontend.kickRing();
  }
}

/** Lets the guests ask for so long; what each was given then, and how long it was. */
function ask(guests: readonly AskingGuest[], ms: number): { bytes: number[]; ms: number } {
  const before = guests.map(({ bytes }) => bytes);
  const startMs = performance.now();
  while (performance.now() < startMs + ms) for (const guest of guests) guest.turn();
  return { bytes: guests.map(({ bytes }, i) => bytes - (before[i] ?? 0)), ms: performance.now() - startMs };
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** The most that any time of that length may hold. */
function allowance(ms: number): number {
  return (Math.floor(ms / PERIOD_MS) + 1) * TOTAL_BYTES;
}

await t.test('two guests share the budget; when one falls silent the other has it all', async (t) => {
  const { paths } = await startRngDaemon(t, { devices: 2, args: BUDGET });
  const guests = paths.map((path) => new AskingGuest(path, 16, 65_536));
  const [first] = guests;
  if (first === undefined) throw new Error('no guest');
  const startMs = performance.now();
  // Whoever came first may have had the first period's bytes.
  ask(guests, 2 * PERIOD_MS);
  const both = ask(guests, 8 * PERIOD_MS);
  t.comment(`${both.bytes.join(' and ')} bytes in ${both.ms.toFixed(0)} ms`);
  t.ok(
    both.bytes.every((bytes) => Math.abs(bytes / sum(both.bytes) - 0.5) < 0.05),
    'equal shares',
  );
  t.ok(sum(both.bytes) > 6 * TOTAL_BYTES, 'and they use it');
  // The second guest's last requests are answered, and it asks for no more.
  ask([first], 2 * PERIOD_MS);
  const alone = ask([first], 8 * PERIOD_MS);
  t.comment(`${sum(alone.bytes)} bytes in ${alone.ms.toFixed(0)} ms`);
  t.ok(sum(alone.bytes) > 6 * TOTAL_BYTES, 'all of it');
  for (const guest of guests) guest.turn();
  const elapsedMs = performance.now() - startMs;
  t.ok(sum(guests.map(({ bytes }) => bytes)) <= allowance(elapsedMs), 'never above the budget');
  t.same(
    guests.map(({ empty }) => empty),
    [0, 0],
    'no request came back empty',
  );
  t.ok(
    guests.every(({ bytes, answers }) => bytes / answers >= 64),
    'nor with a few bytes',
  );
  for (const { vm } of guests) vm.close();
});

await t.test('64 bytes at a time against 16 times 64 KiB: bytes count, not requests', async (t) => {
  const { paths } = await startRngDaemon(t, { devices: 2, args: BUDGET });
  const guests = paths.map((path, i) => new AskingGuest(path, i === 0 ? 16 : 2, i === 0 ? 65_536 : 64));
  ask(guests, 2 * PERIOD_MS);
  const [deep = NaN, shallow = NaN] = ask(guests, 10 * PERIOD_MS).bytes;
  t.comment(`${deep} and ${shallow} bytes`);
  // Half of it on an idle machine. This guest has to share two CPUs with whatever else runs.
  t.ok(shallow / (deep + shallow) > 0.25);
  t.ok(deep / (deep + shallow) > 0.4);
  for (const { vm } of guests) vm.close();
});

await t.test('a device held for the budget is stopped, served on, and ends with the daemon', async (t) => {
  const { daemon, paths } = await startRngDaemon(t, {
    devices: 2,
    args: ['--total-max-bytes=6400', '--total-period=600000'],
  });
  const [one, two] = paths.map((path) => VirtualMachine.start(path));
  if (one === undefined || two === undefined) throw new Error('no machine');
  for (const vm of [one, two]) {
    for (let i = 0; i < 50; i++) t.same(vm.request(), { id: 0, length: 64 });
  }
  for (const vm of [one, two]) {
    vm.ring.request(1, DATA_BASE, 64);
    vm.frontend.kickRing();
    vm.settle();
    t.equal(vm.ring.take(), undefined, 'held');
  }
  t.equal(one.frontend.getVringBase(), 50, 'where the held request is');
  t.ok(two.frontend.getU64(FrontendRequest.GetFeatures) > 0n, 'answered at once');
  one.close();
  for (let i = 0; i < 5; i++) {
    const again = VirtualMachine.start(paths[0] ?? '');
    again.offerAll(64);
    again.frontend.kickRing();
    again.settle();
    t.equal(again.ring.take(), undefined, 'a new connection has no new budget');
    again.close();
  }
  t.match(await daemon.stop(), { code: 0 });
  two.close();
});

await t.test('design §11: reconnecting for 2 s renews neither quota nor burst', async (t) => {
  const limit = { maxBytes: 1000, periodMs: 3000, burstBytes: 500 };
  const { path } = await startRngDaemon(t, {
    args: [
      `--max-bytes=${limit.maxBytes}`,
      `--period=${limit.periodMs}`,
      `--burst-bytes=${limit.burstBytes}`,
    ],
  });
  const startMs = performance.now();
  let total = 0;
  let connections = 0;
  while (performance.now() < startMs + 2000) {
    const vm = VirtualMachine.start(path);
    vm.offerAll(64);
    vm.frontend.kickRing();
    vm.settle();
    for (let used = vm.ring.take(); used !== undefined; used = vm.ring.take()) total += used.length;
    vm.close();
    connections++;
  }
  const periods = Math.floor((performance.now() - startMs) / limit.periodMs) + 1;
  t.comment(`${total} bytes over ${connections} connections`);
  t.ok(connections >= 3);
  t.ok(total >= limit.maxBytes + limit.burstBytes, 'the quota and the burst');
  t.ok(total <= periods * limit.maxBytes + limit.burstBytes, 'and no more');
});
