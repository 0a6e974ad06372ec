// The commonest mistake: QEMU without shared memory. The guest boots without entropy, and the operator reads which option
// to add: in the daemon's log when QEMU passes memory that it keeps to itself, in QEMU's own messages when it has nothing to
// pass and so tells the daemon nothing. The daemon goes on and serves the next guest.
import t from 'tap';
import { endToEnd } from '../support/guest/end-to-end.js';

await endToEnd(t, async (scene) => {
  const socketPath = scene.socketPath('rng');
  const daemon = await scene.startDaemon(`--socket-path=${socketPath}`);

  await t.test("memory-backend-memfd with share=off: the daemon's log names the option", async (t) => {
    const guest = await scene.bootGuest(socketPath, { memory: 'private' });
    const [line] = await daemon.waitForLog(/.*memory-backend-memfd.*share=on.*/, 30_000);
    t.match(line, '[memory_not_shared]');
    await guest.kill();
  });

  await t.test('anonymous memory: QEMU names the option, and the guest boots', async (t) => {
    const guest = await scene.bootGuest(socketPath, { memory: 'anonymous' });
    t.match(guest.messages, /share=on/);
    await guest.kill();
    t.ok(daemon.isRunning);
  });

  await t.test('the same daemon serves a guest with shared memory', async (t) => {
    const guest = await scene.bootGuest(socketPath);
    t.equal((await guest.readHwrng(4096)).length, 4096);
    t.match(await guest.powerOff(), { code: 0 });
  });
});
