// F24 of ARCHITECTURE.md, "Faults": a driver that ignores O_NONBLOCK and does not return. Only the source's own thread hangs
// in it: guests are served by the next source, and the daemon ends when it is told to.
//
// The driver is a FUSE server (support/blocking-device.ts), which takes root; without it these tests are skipped, loudly.
// Leaves out: a driver that even SIGKILL does not end: its caller stays in the kernel, and so does the process.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ask } from '../support/control-client.js';
import { type HungCall, makeBlockingDevice } from '../support/blocking-device.js';
import { heldMachine, ReadingGuest, stillHeld } from '../support/reading-guest.js';
import { eventually, startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { MemorySnapshot } from '../support/untouched.js';

const LOG_MS = 10_000;
/** As many as guests are given before and after. */
const BYTES = 100_000;

/** A device that hangs its caller; undefined when the host has none, and the test is skipped. */
async function blockingDevice(t: Test, hungCall: HungCall): Promise<string | undefined> {
  const device = await makeBlockingDevice(t, hungCall);
  if ('path' in device) return device.path;
  process.stderr.write(`\n*** F24 SKIPPED, no FUSE file system can be mounted: ${device.missing}\n\n`);
  t.pass('a device that hangs', { skip: `no FUSE file system can be mounted: ${device.missing}` });
  return undefined;
}

/** Threads, of any kind, that are in a system call of the driver. */
function threadsInDriver(pid: number): number {
  const stacks = readdirSync(`/proc/${pid}/task`).map((tid) =>
    readFileSync(`/proc/${pid}/task/${tid}/stack`, 'utf8'),
  );
  return stacks.filter((stack) => stack.includes('request_wait_answer')).length;
}

/** True when the source's thread is in a system call of the driver. Source: fs/fuse, as /proc/pid/task/tid/stack shows it. */
function hangsInDriver(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).some((tid) => {
    const task = `/proc/${pid}/task/${tid}`;
    return (
      readFileSync(`${task}/comm`, 'utf8').startsWith('file:') &&
      readFileSync(`${task}/stack`, 'utf8').includes('request_wait_answer')
    );
  });
}

for (const hungCall of ['read', 'open'] as const) {
  await t.test(
    `F24: ${hungCall}(2) hangs: the next source serves, and SIGTERM ends the daemon`,
    async (t) => {
      const device = await blockingDevice(t, hungCall);
      if (device === undefined) return;
      const { daemon, path } = await startRngDaemon(t, {
        args: ['--allow-test-sources', `--source=file:${device}`, '--source=getrandom'],
      });
      t.ok(await eventually(() => hangsInDriver(daemon.pid)), 'its thread hangs');
      const guest = new ReadingGuest(t, path);
      await guest.readTotal(BYTES);
      await daemon.waitForLog(/file:.* is slow.*\[source_slow\]/, LOG_MS);
      process.kill(daemon.pid, 'SIGHUP');
      await daemon.waitForLog(/\[reload\]/, LOG_MS);
      await guest.readTotal(2 * BYTES);
      t.ok(hangsInDriver(daemon.pid), 'still');
      const startedMs = performance.now();
      t.match(await daemon.stop(), { code: 0, signal: undefined });
      t.comment(`ended ${Math.round(performance.now() - startedMs)} ms after SIGTERM`);
      t.match(daemon.log, /exiting without it \[stop_timeout\]/, 'it did not wait for that thread for ever');
    },
  );

  await t.test(
    `F24: ${hungCall}(2) of the only source hangs: all is held, messages are answered`,
    async (t) => {
      const device = await blockingDevice(t, hungCall);
      if (device === undefined) return;
      const { daemon, path } = await startRngDaemon(t, {
        args: ['--allow-test-sources', `--source=file:${device}`],
      });
      t.ok(await eventually(() => hangsInDriver(daemon.pid)), 'its thread hangs');
      const vm = heldMachine(t, path);
      const snapshot = new MemorySnapshot(vm.ram);
      await daemon.waitForLog(/\[source_slow\]/, LOG_MS);
      t.ok(vm.frontend.answers());
      stillHeld(t, vm, snapshot);
      t.match(await daemon.stop(), { code: 0, signal: undefined });
      t.ok(vm.frontend.isClosed());
    },
  );
}

await t.test(
  'F24: open(2) hangs at a reload: health is answered, the source is slow, the next serves, SIGTERM ends it',
  async (t) => {
    const device = await blockingDevice(t, 'open');
    if (device === undefined) return;
    const folder = temporaryFolder(t);
    const [config, socket, control] = ['config.toml', 'rng.sock', 'control.sock'].map((name) =>
      join(folder, name),
    );
    if (config === undefined || socket === undefined || control === undefined) throw new Error('three paths');
    const write = (sources: readonly string[]): void =>
      writeFileSync(
        config,
        `sources = ${JSON.stringify(sources)}\n[[device]]\nname = "rng"\nsocket-path = "${socket}"\n`,
      );
    write(['getrandom']);
    const { daemon } = await startRngDaemon(t, {
      devices: 0,
      args: ['--allow-test-sources', `--config=${config}`, `--control-socket=${control}`],
    });
    await daemon.waitForLog(/listening on/, LOG_MS);
    write([`file:${device}`, 'getrandom']);
    process.kill(daemon.pid, 'SIGHUP');
    t.ok(await eventually(() => threadsInDriver(daemon.pid) > 0), 'the look at it hangs');
    t.match(await ask(control, 'GET /healthz'), { status: 200 });
    await daemon.waitForLog(/reloaded \(SIGHUP\): sources file:.*, getrandom.*\[reload\]/, LOG_MS);
    t.match(await ask(control, 'GET /healthz'), { status: 200 }, 'and is still answered');
    const guest = new ReadingGuest(t, socket);
    await guest.readTotal(BYTES);
    t.match(await daemon.stop(), { code: 0, signal: undefined });
  },
);
