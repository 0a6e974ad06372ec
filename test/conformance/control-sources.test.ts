// Sources that are added, removed, put in order and enabled while guests read, over the control socket of the real daemon.
//
// FIFOs stand for devices, so what a guest was given is compared with what was written. Leaves out: what fails by itself
// (source-failover), one device's choice (control-devices).
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import * as v from 'valibot';
import { DeviceShape, SourcesShape } from '../../daemon/control/shapes.js';
import { BLOCK_BYTES } from '../../daemon/entropy/health-tests.js';
import { ask, type Answer } from '../support/control-client.js';
import { blocks, LOG_MS, withSources } from '../support/fed-sources.js';
import { makeFifo } from '../support/fifo.js';
import { startDaemon } from '../support/guest/daemon.js';
import { ReadingGuest } from '../support/reading-guest.js';
import { eventually, openFdCount, temporaryFolder } from '../support/rng-daemon.js';
import { runToEnd } from '../support/started-process.js';
import { VirtualMachine } from '../support/virtual-machine.js';

async function startWith(t: Test, sources: readonly string[], args: readonly string[] = []) {
  const control = join(temporaryFolder(t), 'control.sock');
  const started = await withSources(t, sources, [`--control-socket=${control}`, ...args]);
  const send = (line: string, body?: object): Promise<Answer> => ask(control, line, body);
  const specs = async (): Promise<string[]> =>
    v.parse(SourcesShape, (await send('GET /v1/sources')).json).sources.map(({ spec }) => spec);
  const drawsFrom = async (): Promise<readonly string[]> =>
    v.parse(DeviceShape, (await send('GET /v1/devices/rng0')).json).sources;
  return { ...started, control, send, specs, drawsFrom };
}

function refusal(answer: Answer): unknown {
  return { status: answer.status, ...(answer.json as { error?: object }).error };
}

await t.test('a guest reads on while its sources are added, put in order and removed', async (t) => {
  const [a, b] = [makeFifo(t), makeFifo(t)];
  const [first, second] = [`file:${a.path}`, `file:${b.path}`];
  const { path, send, specs, drawsFrom, daemon } = await startWith(t, [first]);
  const guest = new ReadingGuest(t, path);
  const fromA = blocks(2, 1);
  a.write(fromA.written);
  await guest.readTotal(2 * BLOCK_BYTES);
  t.ok(guest.bytes.equals(fromA.given), 'all of the first source');

  t.match(await send('POST /v1/sources', { source: second }), {
    status: 201,
    json: { spec: second, state: 'starting' },
  });
  t.same(await specs(), [first, second]);
  t.same(await drawsFrom(), [first, second], 'the device follows');
  const fromB = blocks(3, 2);
  b.write(fromB.written);
  await guest.readTotal(5 * BLOCK_BYTES);
  t.ok(
    guest.bytes.subarray(2 * BLOCK_BYTES).equals(fromB.given),
    'the second serves where the first has none',
  );

  t.match(await send('PUT /v1/sources', { sources: [second, first] }), { status: 200 });
  t.same(await drawsFrom(), [second, first]);
  t.match(await send(`DELETE /v1/sources/${encodeURIComponent(first)}`), { status: 200 });
  t.same(await specs(), [second]);
  // What waits of the source that was removed is wiped with it: nothing of it is given any more.
  a.write(blocks(3, 3).written);
  const more = blocks(3, 4);
  b.write(more.written);
  await guest.readTotal(7 * BLOCK_BYTES);
  await guest.readAll();
  const behind = Buffer.concat([fromB.written, more.written]).subarray(
    3 * BLOCK_BYTES,
    guest.count - 2 * BLOCK_BYTES,
  );
  t.ok(guest.bytes.subarray(5 * BLOCK_BYTES).equals(behind), 'only of the one that is left');
  await daemon.waitForLog(/guests draw from file:\S+ \(by uid \d+, pid \d+\) \[sources_changed\]/, LOG_MS);
  t.match(await daemon.stop(), { code: 0 });
});

await t.test('what cannot be is refused with the reason, and changes nothing', async (t) => {
  const { send, specs, drawsFrom } = await startWith(t, ['random']);
  t.match(refusal(await send('DELETE /v1/sources/random')), { status: 409, code: 'last_source' });
  t.match(refusal(await send('DELETE /v1/sources/hwrng')), {
    status: 404,
    code: 'unknown_source',
    message: /random:\/dev\/random/,
  });
  t.match(refusal(await send('POST /v1/sources', { source: 'random' })), {
    status: 409,
    code: 'source_exists',
  });
  t.match(refusal(await send('POST /v1/sources', { source: 'nonsense' })), {
    status: 400,
    code: 'bad_field',
    field: 'source',
  });
  t.match(refusal(await send('POST /v1/sources', { source: 'hwrng:/no/such' })), {
    status: 400,
    code: 'source_open',
  });
  t.match(refusal(await send('POST /v1/sources', { source: 'getrandom', position: -1 })), {
    status: 400,
    field: 'position',
  });
  t.match(refusal(await send('PUT /v1/sources', { sources: ['getrandom', 'hwrng:/no/such'] })), {
    status: 400,
    code: 'source_open',
  });
  t.match(refusal(await send('PUT /v1/sources', { sources: ['getrandom', 'getrandom'] })), {
    status: 400,
    field: 'sources',
  });
  t.match(refusal(await send('PUT /v1/sources', { sources: [] })), { status: 400, field: 'sources' });
  t.match(refusal(await send('POST /v1/sources', { source: 'random,min-entropy=4' })), {
    status: 400,
    message: /min-entropy 8/,
  });
  t.match(refusal(await send('PUT /v1/sources', { sources: ['random,min-entropy=4'] })), {
    status: 400,
    message: /min-entropy 8/,
  });
  t.match(refusal(await send('POST /v1/sources/enable', { source: 'hwrng' })), { status: 404 });
  t.same(await specs(), ['random:/dev/random']);
  t.same(await drawsFrom(), ['random:/dev/random']);
});

await t.test("a device's own sources stay with it, and stay for it", async (t) => {
  const { send, specs, drawsFrom, path } = await startWith(t, ['random']);
  await send('POST /v1/sources', { source: 'getrandom' });
  t.match(await send('PATCH /v1/devices/rng0', { sources: ['getrandom'] }), { json: { ownSources: true } });
  t.match(refusal(await send('DELETE /v1/sources/getrandom')), {
    status: 409,
    code: 'source_in_use',
    message: /rng0/,
  });
  t.match(await send('PUT /v1/sources', { sources: ['random'] }), { status: 200 });
  t.same(await specs(), ['random:/dev/random', 'getrandom'], 'it is read for the device alone');
  t.same(await drawsFrom(), ['getrandom']);
  const vm = VirtualMachine.start(path);
  t.equal(vm.request(64).length, 64);
  t.match(await send('PATCH /v1/devices/rng0', { sources: null }), { json: { ownSources: false } });
  t.same(await drawsFrom(), ['random:/dev/random'], 'it follows again');
  t.match(await send('DELETE /v1/sources/getrandom'), { status: 200 });
  t.same(await specs(), ['random:/dev/random']);
  t.equal(vm.request(64).length, 64);
  vm.close();
});

await t.test('one failed source is enabled, the other is not', async (t) => {
  const sources = ['file:/dev/zero', 'file:/dev/full', 'random'];
  const { send, daemon } = await startWith(t, sources);
  await daemon.waitForLog(
    /\/dev\/zero failed[^]*\/dev\/full failed|\/dev\/full failed[^]*\/dev\/zero failed/,
    LOG_MS,
  );
  t.same((await send('POST /v1/sources/enable', { source: 'file:/dev/zero' })).json, {
    enabled: ['file:/dev/zero'],
  });
  await daemon.waitForLog(/enabled again \(uid \d+, pid \d+\): file:\/dev\/zero \[/, LOG_MS);
});

await t.test('a hundred sources come and go: no thread, fd or mapping is left', async (t) => {
  const { send, daemon, path } = await startWith(t, ['random']);
  const vm = VirtualMachine.start(path);
  const held = () => ({
    fds: openFdCount(daemon.pid),
    threads: readdirSync(`/proc/${daemon.pid}/task`).length,
    locked: Number(/^VmLck:\s+(\d+)/m.exec(readFileSync(`/proc/${daemon.pid}/status`, 'utf8'))?.[1]),
  });
  const cycle = async (): Promise<void> => {
    await send('POST /v1/sources', { source: 'getrandom', position: 0 });
    vm.request(64);
    await send('DELETE /v1/sources/getrandom');
  };
  for (let i = 0; i < 5; i++) await cycle();
  const settled = (wanted: ReturnType<typeof held>): boolean => {
    const now = held();
    return now.fds <= wanted.fds && now.threads <= wanted.threads && now.locked <= wanted.locked;
  };
  let before = held();
  await eventually(() => {
    const now = held();
    const still = JSON.stringify(now) === JSON.stringify(before);
    before = now;
    return still;
  });
  for (let i = 0; i < 100; i++) await cycle();
  t.ok(
    await eventually(() => settled(before), 10_000),
    `${JSON.stringify(before)}, then ${JSON.stringify(held())}`,
  );
  vm.close();
});

await t.test(
  'a change survives a restart by the state file; a reload that changes the sources needs none',
  async (t) => {
    const folder = temporaryFolder(t);
    const at = (name: string): string => join(folder, name);
    const write = (sources: string): void =>
      writeFileSync(
        at('config'),
        `sources = ${sources}\nstate-file = "${at('state')}"\n[[device]]\nname = "rng0"\nsocket-path = "${at('a.sock')}"\n[control]\nsocket = "${at('control.sock')}"\n`,
      );
    const start = async () => {
      const daemon = await startDaemon([`--config=${at('config')}`]);
      t.teardown(() => daemon.kill());
      await daemon.waitForLog(/\[listening\]/, LOG_MS);
      return daemon;
    };
    const drawsFrom = async (): Promise<readonly string[]> =>
      v.parse(DeviceShape, (await ask(at('control.sock'), 'GET /v1/devices/rng0')).json).sources;
    write('["random"]');
    const first = await start();
    await ask(at('control.sock'), 'PUT /v1/sources', { sources: ['getrandom', 'random'] });
    await first.stop();
    const second = await start();
    t.same(await drawsFrom(), ['getrandom', 'random:/dev/random']);
    write('["rdrand-nonsense"]');
    t.match(await ask(at('control.sock'), 'POST /v1/reload'), { status: 400 });
    t.same(await drawsFrom(), ['getrandom', 'random:/dev/random']);
    write('["random:/dev/urandom", "getrandom"]');
    t.match(await ask(at('control.sock'), 'POST /v1/reload'), {
      json: {
        changed: ['sources random:/dev/urandom, getrandom', /devices that are added/],
        needsRestart: [],
      },
    });
    t.same(await drawsFrom(), ['random:/dev/urandom', 'getrandom']);
    const { sources } = v.parse(SourcesShape, (await ask(at('control.sock'), 'GET /v1/sources')).json);
    t.same(
      sources.map(({ spec }) => spec),
      ['random:/dev/urandom', 'getrandom'],
      'what nobody draws from any more is not read',
    );
    const vm = VirtualMachine.start(at('a.sock'));
    t.equal(vm.request(64).length, 64);
    vm.close();
    // A second daemon would overwrite what this one keeps.
    const other = runToEnd([`--state-file=${at('state')}`, `--socket-path=${at('b.sock')}`]);
    t.equal(other.status, 75, 'for now: it may end');
    t.match(other.stderr, new RegExp(`which the daemon of pid ${second.pid} keeps.*\\[state_file_taken\\]`));
    const startedMs = performance.now();
    const args = [`--state-file=${at('state')}`, `--socket-path=${at('b.sock')}`];
    t.equal(runToEnd(args, { NOTIFY_SOCKET: at('nobody') }).status, 75);
    t.ok(
      performance.now() - startedMs >= 1000,
      'whoever would start it anew at once has a second between two tries',
    );
    await second.kill();
    const third = await start();
    t.same(
      await drawsFrom(),
      ['random:/dev/urandom', 'getrandom'],
      'as configured last, and no lock is in the way',
    );
    await third.stop();
  },
);
