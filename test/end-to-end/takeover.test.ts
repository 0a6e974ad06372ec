// A real guest reads on while one daemon after the other takes over from the last (`--takeover`), without a
// service manager. Left out: what keeps a new daemon from it (conformance/takeover.test.ts).
import t from 'tap';
import { endToEnd } from '../support/guest/end-to-end.js';

const MEBIBYTE = 1 << 20;
const TAKEOVERS = 5;
const BLOCK_BYTES = 16;

await endToEnd(t, async (scene) => {
  const socketPath = scene.socketPath('rng');
  const control = scene.socketPath('control');
  const options = [`--socket-path=${socketPath}`, `--control-socket=${control}`];
  let daemon = await scene.startDaemon(...options);
  const guest = await scene.bootGuest(socketPath);

  await t.test(`a read goes on over ${TAKEOVERS} takeovers, and brings no block twice`, async (t) => {
    const reading = guest.readHwrng(MEBIBYTE);
    for (let i = 0; i < TAKEOVERS; i++) {
      const next = await scene.startDaemon(...options, `--takeover=${control}`);
      t.match(await daemon.waitExit(), { code: 0 }, 'the old one has ended by itself');
      t.match(next.log, /a front-end goes on in this process/);
      daemon = next;
    }
    const bytes = await reading;
    t.equal(bytes.length, MEBIBYTE);
    const blocks = new Set<string>();
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES)
      blocks.add(bytes.toString('latin1', at, at + BLOCK_BYTES));
    t.equal(blocks.size, MEBIBYTE / BLOCK_BYTES);
  });

  await t.test('the guest lives on with the last one', async (t) => {
    await guest.reset();
    t.equal((await guest.readHwrng(4096)).length, 4096);
    await guest.powerOff();
    t.same(await daemon.stop(), { code: 0, signal: null });
  });
});
