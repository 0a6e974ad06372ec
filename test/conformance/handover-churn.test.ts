// VMMs come, negotiate, set up and go without end while the daemon is killed at random moments: whatever was under way, a connection that
// waits, half a negotiation, a reply, goes on in the next process.
//
// Leaves out: the moment between accept(2) and the store, see ARCHITECTURE.md, "The next process".
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { listenOn } from '../../daemon/listening-socket.js';
import { Fault } from '../../protocol/fault.js';
import { temporaryFolder } from '../support/rng-daemon.js';
import { ServiceManager } from '../support/service-manager.js';

const PROGRAM = fileURLToPath(new URL('../support/churning-vmm.js', import.meta.url));
const VMMS = 400;
const LEAST_KILLS = 10;
const LONGEST_DELAY_MS = 150;

await t.test(`${VMMS} VMMs, one after the other, under SIGKILLs`, async (t) => {
  const path = join(temporaryFolder(t), 'rng.sock');
  const listening = listenOn(path, { mode: 0o600, group: undefined });
  if (listening instanceof Fault) throw listening;
  const sockets = [{ name: 'rng', fd: listening.fd }];
  const manager = new ServiceManager(t);
  await manager.start([], { sockets });
  const env = { ...process.env, NODE_OPTIONS: '' };
  const vmms = spawn(process.execPath, [PROGRAM, path, String(VMMS)], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env,
  });
  t.teardown(() => vmms.kill('SIGKILL'));
  let said = '';
  vmms.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  const ended = once(vmms, 'exit') as Promise<[number | null]>;
  let kills = 0;
  while (vmms.exitCode === null) {
    await setTimeout(Math.random() * LONGEST_DELAY_MS);
    await manager.kill('SIGKILL');
    kills++;
    await manager.start([], { sockets });
  }
  const [status] = await ended;
  t.equal(status, 0, said);
  t.ok(kills >= LEAST_KILLS, `${kills} kills`);
  t.match(manager.log, /a front-end goes on in this process/);
  await manager.until(
    () => manager.names.length === 2,
    'nothing kept of VMMs that have gone but the ledgers',
  );
});
