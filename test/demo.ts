// `npm run demo`: from nothing to a guest that reads this daemon's entropy, step by step. Installs and fetches what is
// missing, starts the daemon, boots a guest, shows what the guest sees, and leaves nothing behind.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { styleText } from 'node:util';
import { qemuLine } from '../daemon/qemu-line.js';
import { type Daemon, startDaemon } from './support/guest/daemon.js';
import { bootGuest, type Guest } from './support/guest/guest.js';
import { installPackages } from './support/guest/install.js';
import { fetchKernel } from './support/guest/kernel.js';
import { guestToolsMissing, missingPackages } from './support/guest/tools.js';

const MAIN = fileURLToPath(new URL('../daemon/main.cjs', import.meta.url));

/** Exit codes of a shell for a program that a signal ended. */
const INTERRUPTED = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

const isTerminal = process.stdout.isTTY;
const folder = mkdtempSync(join(tmpdir(), 'vhost-rngd-demo-'));
const state: { daemon?: Daemon; guest?: Guest; leaving?: boolean } = {};
let step = 0;

for (const [signal, exitCode] of Object.entries(INTERRUPTED)) {
  process.once(signal, () => {
    say('\nInterrupted: cleaning up.');
    void leave(exitCode);
  });
}
try {
  await demo();
  await leave(0);
} catch (error) {
  // An interrupted demo fails in the middle of something: nothing to tell.
  if (state.leaving !== true)
    process.stderr.write(`\n${error instanceof Error ? error.message : String(error)}\n`);
  await leave(1);
}

async function demo(): Promise<void> {
  heading('Look for QEMU');
  await ensureTools();

  heading('Get a kernel for the guest (Debian cloud kernel, about 30 MB once; nothing is installed)');
  const kernel = await withProgress('fetching', () => fetchKernel());
  say(`  ${kernel.id}`);

  heading('Start the daemon');
  const socketPath = join(folder, 'rng.sock');
  say(`  $ vhost-rngd --socket-path=${socketPath}`);
  const daemon = await startDaemon([`--socket-path=${socketPath}`]);
  state.daemon = daemon;
  say(indented(daemon.log));

  heading('Boot a guest on it (emulated: takes 3 to 10 s)');
  const logged = daemon.log.length;
  const guest = await withProgress('booting', () =>
    bootGuest({ parentFolder: folder, devices: [{ kind: 'vhost-user', socketPath }] }),
  );
  state.guest = guest;
  await show(guest, 'uname -sr');

  heading('What the guest sees');
  await show(guest, 'cat /sys/class/misc/hw_random/rng_current');
  await show(guest, 'hexdump -C -n 64 /dev/hwrng');
  const timed = await show(guest, 'time dd if=/dev/hwrng of=/dev/null bs=4096 count=16 iflag=fullblock');
  const seconds = Number(/real\s+0m ([\d.]+)s/.exec(timed)?.[1]);
  say(`  64 KiB in ${seconds} s: ${(64 / seconds).toFixed(0)} KiB/s, in an emulated guest`);

  heading('Switch the guest off');
  await guest.powerOff();
  const { code } = await daemon.stop();
  say(`  the guest is off, the daemon ended with ${code ?? 'a signal'}; it logged of this guest:`);
  say(indented(daemon.log.slice(logged)));

  sayOwnVm();
}

/** Has QEMU installed when it is missing, or ends with the command to type. */
async function ensureTools(): Promise<void> {
  if (guestToolsMissing() !== undefined) {
    say(`  missing: installing ${missingPackages().join(' ')}`);
    await installPackages(missingPackages());
  }
  const command = guestToolsMissing();
  if (command !== undefined) {
    throw new Error(
      `QEMU is missing and could not be installed from here. Type this, then run the demo again:\n\n  ${command}`,
    );
  }
  say('  found');
}

function sayOwnVm(): void {
  const socketPath = '/tmp/vhost-rngd.sock';
  heading('A VM of your own: start the daemon, then QEMU with these options added');
  say(`  node ${MAIN} --socket-path=${socketPath}`);
  say(qemuLine(socketPath));
}

/** Runs a command in the guest, prints both as a terminal there would, and gives the output. */
async function show(guest: Guest, command: string): Promise<string> {
  const output = await guest.output(command);
  say(`  guest$ ${command}\n${indented(output)}`);
  return output;
}

/** Shows that something goes on: a line that counts seconds on a terminal, one plain line elsewhere. */
async function withProgress<T>(what: string, work: () => Promise<T>): Promise<T> {
  const startMs = performance.now();
  const seconds = (): string => ((performance.now() - startMs) / 1000).toFixed(1);
  const frames = '|/-\\';
  let frame = 0;
  const draw = (): void => {
    process.stdout.write(`\r\x1b[K  ${frames[frame++ % frames.length] ?? ''} ${what}, ${seconds()} s`);
  };
  const timer = isTerminal ? setInterval(draw, 100) : undefined;
  if (!isTerminal) say(`  ${what} ...`);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    if (isTerminal) process.stdout.write('\r\x1b[K');
    say(`  done in ${seconds()} s`);
  }
}

/** Ends all that was started, removes the sockets and exits; the first call's exit code counts. */
async function leave(exitCode: number): Promise<void> {
  if (state.leaving === true) return;
  state.leaving = true;
  await Promise.allSettled([state.guest?.kill(), state.daemon?.kill()]);
  rmSync(folder, { recursive: true, force: true });
  process.exit(exitCode);
}

function heading(text: string): void {
  step++;
  const line = `${step}. ${text}`;
  say(`\n${isTerminal ? styleText('bold', line) : line}`);
}

function indented(text: string): string {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => `    ${line}`)
    .join('\n');
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
