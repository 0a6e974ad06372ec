// What is left of entropy in the daemon once a guest has it: nothing. And who could see what still waits: nobody but root, in no
// core file, no swap and no forked child. docs/entropy.md, "What can go wrong, and what then".
//
// The memory of the real daemon is read from outside, which takes root (without it this file is skipped, and says so).
// Leaves out: registers, and what the kernel keeps of a pipe or of its own generator.
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { BLOCK_BYTES } from '../../daemon/entropy/health-tests.js';
import { blocks, LOG_MS, withSources } from '../support/fed-sources.js';
import { makeFifo } from '../support/fifo.js';
import { findInMemory, type ListedMapping, listMappings, SoughtBytes } from '../support/memory-scan.js';
import { ReadingGuest } from '../support/reading-guest.js';
import { ChildProcess } from '../support/guest/child-process.js';
import { eventually, startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { MAIN } from '../support/started-process.js';

/** Locked, left out of core files, wiped in a forked child. */
const SECRET_FLAGS = ['lo', 'dd', 'wf'];
/** Half of node's own memory at least was looked at, or the scan has missed something. */
const LEAST_SCANNED_BYTES = 20e6;

const CAP_SYS_PTRACE = 19n;
const TITLES = { process: 'the daemon', stdout: 'daemon output', stderr: 'daemon log' };

const isGuestMemory = ({ name }: ListedMapping) => name.startsWith('/memfd:');
const isSecret = ({ flags }: ListedMapping) => SECRET_FLAGS.every((flag) => flags.includes(flag));

function find(t: Test, pid: number, ...secrets: readonly Buffer[]): readonly ListedMapping[] {
  const { places, bytes } = findInMemory(pid, new SoughtBytes(...secrets), isGuestMemory);
  t.ok(bytes > LEAST_SCANNED_BYTES, `${bytes} bytes of memory were looked at`);
  return places.map(({ mapping }) => mapping);
}

function describe(mappings: readonly ListedMapping[]): string {
  return mappings
    .map(({ start, name, flags }) => `0x${start.toString(16)} ${name} ${flags.join()}`)
    .join('; ');
}

/** Bytes of all mappings that are kept as secrets are. */
function secretBytes(pid: number): number {
  return listMappings(pid)
    .filter(isSecret)
    .reduce((sum, { start, end }) => sum + end - start, 0);
}

/** Threads make theirs as they start. */
async function hasSecretBytes(t: Test, pid: number, expected: number): Promise<void> {
  await eventually(() => secretBytes(pid) === expected);
  t.equal(secretBytes(pid), expected);
}

/** Undefined where the memory of a process that is not dumpable can be read. Source: capabilities(7). */
function whyNoScan(): string | undefined {
  const effective = /^CapEff:\t(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  const hasPtrace = ((BigInt(`0x${effective}`) >> CAP_SYS_PTRACE) & 1n) === 1n;
  return hasPtrace ? undefined : 'expected the capability CAP_SYS_PTRACE: run the tests as root';
}

const reason = whyNoScan();
if (reason === undefined) {
  await t.test('bytes that wait are found, and only in locked mappings of their own', async (t) => {
    const fifo = makeFifo(t);
    const { daemon } = await withSources(t, [`file:${fifo.path}`]);
    const good = blocks(4, 70);
    fifo.write(good.written);
    await daemon.waitForLog(/\[source_ready\]/, LOG_MS);
    const wanted = good.written.length / 4 - 8;
    let found: readonly ListedMapping[] = [];
    await eventually(() => {
      found = find(t, daemon.pid, good.written);
      return found.length > wanted;
    });
    t.ok(found.length > wanted, `the scan sees: ${found.length} pieces of ${good.written.length} bytes`);
    t.same(describe(found.filter((mapping) => !isSecret(mapping))), '');
  });

  await t.test('bytes that a guest was given are nowhere, while the window behind them waits', async (t) => {
    const fifo = makeFifo(t);
    const { daemon, path } = await withSources(t, [`file:${fifo.path}`]);
    const guest = new ReadingGuest(t, path, { length: 100 });
    const good = blocks(12, 71);
    fifo.write(good.written);
    await guest.readTotal(good.given.length);
    t.ok(guest.bytes.equals(good.given));
    t.equal(describe(find(t, daemon.pid, good.given)), '', 'handed out');
    const waiting = good.written.subarray(good.given.length);
    t.ok(find(t, daemon.pid, waiting).length >= waiting.length / 4 - 2, 'the scan sees what waits');

    fifo.write(Buffer.alloc(2 * BLOCK_BYTES, 0x99));
    await daemon.waitForLog(/failed a health test: .*\[source_failed\]/, LOG_MS);
    t.equal(describe(find(t, daemon.pid, waiting)), '', 'what is dropped after an alarm is wiped');
  });

  await t.test('--mix: neither the source’s bytes nor the kernel’s nor what came of them', async (t) => {
    const fifo = makeFifo(t);
    const { daemon, path } = await withSources(t, [`file:${fifo.path}`], ['--mix']);
    const guest = new ReadingGuest(t, path);
    const good = blocks(12, 72);
    fifo.write(good.written);
    await guest.readTotal(good.given.length);
    const kernels = Buffer.from(guest.bytes.map((byte, i) => byte ^ (good.given[i] ?? 0)));
    for (const [whose, bytes] of Object.entries({ source: good.given, kernel: kernels, guest: guest.bytes }))
      t.equal(describe(find(t, daemon.pid, bytes)), '', whose);
  });

  for (const source of ['random', 'getrandom']) {
    await t.test(
      `--source=${source}: nothing of what 3 guests were given, nor of a guest that has gone`,
      async (t) => {
        const { daemon, paths } = await startRngDaemon(t, { devices: 3, args: [`--source=${source}`] });
        const guests = paths.map(
          (path, i) => new ReadingGuest(t, path, { length: [64, 1000, 16_384][i] ?? 64 }),
        );
        for (const guest of guests) await guest.readTotal(40_000);
        const given = () => guests.map((guest) => guest.bytes);
        guests[0]?.vm.close();
        // Requests that are pending are answered, and not taken yet: they belong to the guest's memory.
        t.equal(describe(find(t, daemon.pid, ...given())), '');
      },
    );
  }

  await t.test(
    'every mapping of entropy is locked, left out of core files and wiped in a fork',
    async (t) => {
      const { daemon } = await startRngDaemon(t);
      // A queue of 32 KiB and a page of staging memory for the source, 8 KiB of pool. Neighbours are listed as one.
      await hasSecretBytes(t, daemon.pid, 32_768 + 4096 + 8192);
      const fifo = makeFifo(t);
      const mixing = await withSources(t, [`file:${fifo.path}`], ['--mix']);
      await hasSecretBytes(t, mixing.daemon.pid, 2 * (32_768 + 4096) + 2 * 8192);
      t.notMatch(mixing.daemon.log, /pool_not_locked/);
    },
  );

  await t.test('guests’ memory is not in core files either', async (t) => {
    const { daemon, path } = await startRngDaemon(t);
    const guest = new ReadingGuest(t, path);
    await guest.readTotal(1000);
    const mapped = listMappings(daemon.pid).filter(isGuestMemory);
    t.ok(mapped.length > 0);
    t.ok(mapped.every(({ flags }) => flags.includes('dd')));
  });

  for (const debug of [false, true]) {
    const title = debug
      ? '--debug: a debugger of the same user may look, and core files are as the shell says'
      : 'no process of the same user can look into the daemon; no core files';
    await t.test(title, async (t) => {
      const folder = temporaryFolder(t);
      const user = ['--reuid=65534', '--regid=65534', '--clear-groups'];
      execFileSync('chown', ['65534', folder]);
      const daemon = [process.execPath, MAIN, `--socket-path=${join(folder, 'a.sock')}`];
      const child = new ChildProcess(TITLES, 'prlimit', [
        '--core=4096:8192',
        ...['setpriv', ...user, ...daemon, ...(debug ? ['--debug'] : [])],
      ]);
      t.teardown(() => child.kill());
      await child.stderr.waitFor(/listening on/, LOG_MS);
      const { pid } = child;
      const look = spawnSync('setpriv', [...user, 'cat', `/proc/${pid}/environ`], { encoding: 'utf8' });
      if (debug) t.equal(look.status, 0, look.stderr);
      else t.match(look.stderr, /Permission denied/);
      const core = /^Max core file size +(\S+) +(\S+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'));
      t.same(core?.slice(1), debug ? ['4096', '8192'] : ['0', '0']);
    });
  }
} else {
  process.stderr.write(`\n*** SECRETS IN MEMORY NOT TESTED: ${reason}\n\n`);
  t.plan(0, reason);
}
