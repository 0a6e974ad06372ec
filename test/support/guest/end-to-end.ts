// What every end-to-end test shares: the check that guests can be booted here, a private folder for sockets, and the end
// of every guest and daemon that a test started.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { findBusybox } from './busybox.js';
import { type Daemon, startDaemon } from './daemon.js';
import { bootGuest, type Guest, type GuestOptions } from './guest.js';
import { fetchKernel } from './kernel.js';
import { guestToolsMissing } from './tools.js';

/** Set to 1, a host that cannot boot guests fails the end-to-end tests; otherwise it skips them. */
const REQUIRE_VARIABLE = 'VHOST_RNGD_REQUIRE_E2E';

/** Longest time of one test file, on a machine that does much else. */
const FILE_TIMEOUT_MS = 600_000;

/** Runs `body` in a scene of its own, or skips it, or fails it, with one line that says how to make it run. */
export async function endToEnd(t: Test, body: (scene: Scene) => Promise<void>): Promise<void> {
  t.setTimeout(FILE_TIMEOUT_MS);
  const reason = await whyNoGuest();
  if (reason === undefined) {
    await runInScene(t, body);
  } else if (process.env[REQUIRE_VARIABLE] === '1') {
    t.fail(`cannot boot a guest, which ${REQUIRE_VARIABLE}=1 requires: ${reason}`);
  } else {
    process.stderr.write(`\n*** END-TO-END TEST SKIPPED, no guest can be booted: ${reason}\n\n`);
    t.plan(0, `no guest can be booted: ${reason}`);
  }
}

/** What throws outside of a subtest fails the file, after everything was ended; a failure shows what the daemons logged. */
async function runInScene(t: Test, body: (scene: Scene) => Promise<void>): Promise<void> {
  const scene = new Scene();
  try {
    await body(scene);
  } catch (error) {
    t.fail(error instanceof Error ? error.message : String(error));
  } finally {
    if (!t.passing()) process.stderr.write(`${scene.daemonLogs()}\n`);
    await scene.close();
  }
}

/** Daemons, guests and sockets of one test file. */
class Scene {
  readonly #folder = mkdtempSync(join(tmpdir(), 'vhost-rngd-e2e-'));
  readonly #daemons: Daemon[] = [];
  readonly #guests: Guest[] = [];

  socketPath(name: string): string {
    return join(this.#folder, `${name}.sock`);
  }

  async startDaemon(...args: readonly string[]): Promise<Daemon> {
    const daemon = await startDaemon(args);
    this.#daemons.push(daemon);
    return daemon;
  }

  /** Boots a guest whose one device is served at `socketPath`. */
  async bootGuest(socketPath: string, options: Omit<GuestOptions, 'devices'> = {}): Promise<Guest> {
    const guest = await bootGuest({
      ...options,
      parentFolder: this.#folder,
      devices: [{ kind: 'vhost-user', socketPath }],
    });
    this.#guests.push(guest);
    return guest;
  }

  daemonLogs(): string {
    return this.#daemons.map((daemon) => `--- daemon log ---\n${daemon.log.trimEnd()}`).join('\n');
  }

  async close(): Promise<void> {
    await Promise.all(this.#guests.map((guest) => guest.kill()));
    await Promise.all(this.#daemons.map((daemon) => daemon.kill()));
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

async function whyNoGuest(): Promise<string | undefined> {
  const command = guestToolsMissing();
  if (command !== undefined) return `type: ${command}`;
  try {
    await fetchKernel();
    await findBusybox();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
