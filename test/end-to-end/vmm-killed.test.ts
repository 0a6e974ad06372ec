// A VMM that dies by SIGKILL while its guest reads: the daemon lives on, frees everything, and serves the next guest.
import t from 'tap';
import { waitUntil } from '../support/guest/deadline.js';
import { endToEnd } from '../support/guest/end-to-end.js';
import { guestMappings, openFiles } from '../support/guest/proc-files.js';

const ROUNDS = 2;

await endToEnd(t, async (scene) => {
  const socketPath = scene.socketPath('rng');
  const daemon = await scene.startDaemon(`--socket-path=${socketPath}`);
  const filesBefore = openFiles(daemon.pid);
  t.strictSame(guestMappings(daemon.pid), [], 'no guest memory before the first guest');

  for (let round = 1; round <= ROUNDS; round++) {
    await t.test(`VMM killed while its guest reads, round ${round}`, async (t) => {
      const guest = await scene.bootGuest(socketPath);
      await guest.run('dd if=/dev/hwrng of=/dev/null bs=4096 & sleep 0.5');
      t.not(guestMappings(daemon.pid).length, 0, "the guest's memory is mapped");
      await guest.kill();
      await waitUntil(
        () => sameFiles(openFiles(daemon.pid)) && guestMappings(daemon.pid).length === 0,
        10_000,
        () =>
          [
            `expected the files ${filesBefore.join(' ')} and no guest memory,`,
            `got the files ${openFiles(daemon.pid).join(' ')} and the mappings`,
            ...guestMappings(daemon.pid),
            daemon.log,
          ].join('\n'),
      );
      t.ok(daemon.isRunning, 'the daemon lives');
    });
  }

  await t.test('a new guest is served', async (t) => {
    const guest = await scene.bootGuest(socketPath);
    t.equal((await guest.readHwrng(4096)).length, 4096);
    t.match(await guest.powerOff(), { code: 0 });
  });

  function sameFiles(files: readonly string[]): boolean {
    return files.join('\n') === filesBefore.join('\n');
  }
});
