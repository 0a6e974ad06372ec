// A guest reads without pause while its daemon, the service of a real systemd, is killed and restarted at random moments: what becomes of the
// guest, and how long it waits.
import { setTimeout } from 'node:timers/promises';
import type { Guest } from '../guest/guest.js';
import { HwrngStream } from '../guest/hwrng-stream.js';
import type { SystemdContainer } from './container.js';

const SERVICE = 'vhost-rngd.service';
/** A guest that reads nothing for so long hangs. */
const HANG_MS = 30_000;
/** The guest reads so much between two interruptions, and then for a random time. */
const BETWEEN_BYTES = 4096;
const LONGEST_DELAY_MS = 500;

/** How the daemon is interrupted: a crash, an upgrade, a crash of the process that is just starting. */
export type Interruption = 'SIGKILL' | 'restart' | 'SIGKILL twice';

/** What was seen. */
export interface Outcome {
  /** How long the guest had no byte, in ms, for each interruption in order. */
  readonly pausesMs: ReadonlyMap<Interruption, readonly number[]>;
  readonly bytes: number;
  readonly repeatedBlocks: number;
}

/** Interrupts the daemon as `wanted` says, in this order; rejects when the guest hangs, or QEMU has ended. */
export async function interrupt(
  guest: Guest,
  container: SystemdContainer,
  wanted: readonly Interruption[],
  told: (done: number, pauseMs: number) => void = () => undefined,
): Promise<Outcome> {
  const stream = new HwrngStream(guest);
  const pausesMs = new Map<Interruption, number[]>();
  await stream.more(BETWEEN_BYTES, HANG_MS);
  for (const [i, how] of wanted.entries()) {
    await setTimeout(Math.random() * LONGEST_DELAY_MS);
    const pid = await container.mainPid(SERVICE);
    stream.beginMeasuring();
    if (how === 'restart') {
      await container.outputOf('systemctl', 'restart', SERVICE);
    } else {
      process.kill(pid, 'SIGKILL');
      if (how === 'SIGKILL twice') await killNext(container, pid);
    }
    await stream.more(BETWEEN_BYTES, HANG_MS);
    if (!guest.isRunning) throw new Error(`QEMU has ended\n${guest.messages}`);
    const pauseMs = stream.longestGapMs;
    pausesMs.set(how, [...(pausesMs.get(how) ?? []), pauseMs]);
    told(i + 1, pauseMs);
    await container.untilProperty(SERVICE, 'ActiveState', (state) => state === 'active');
  }
  return { pausesMs, bytes: stream.bytes, repeatedBlocks: stream.repeatedBlocks() };
}

/** Kills the next process too, somewhere in its start. */
async function killNext(container: SystemdContainer, before: number): Promise<void> {
  for (;;) {
    const pid = await container.mainPid(SERVICE).catch(() => before);
    if (pid !== before) {
      await setTimeout(Math.random() * LONGEST_DELAY_MS);
      process.kill(pid, 'SIGKILL');
      return;
    }
  }
}
