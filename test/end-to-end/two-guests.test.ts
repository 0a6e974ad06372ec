// Two guests at once on two sockets of one daemon: both are served, and one that goes does not disturb the other.
import t from 'tap';
import { endToEnd } from '../support/guest/end-to-end.js';

const LENGTH = 64 * 1024;

await endToEnd(t, async (scene) => {
  const paths = [scene.socketPath('first'), scene.socketPath('second')] as const;
  const daemon = await scene.startDaemon(...paths.map((path) => `--socket-path=${path}`));
  const [first, second] = await Promise.all([scene.bootGuest(paths[0]), scene.bootGuest(paths[1])]);

  await t.test('both read at the same time, and not the same bytes', async (t) => {
    const [ofFirst, ofSecond] = await Promise.all([first.readHwrng(LENGTH), second.readHwrng(LENGTH)]);
    t.equal(ofFirst.length, LENGTH);
    t.equal(ofSecond.length, LENGTH);
    t.equal(countSharedBlocks(ofFirst, ofSecond), 0, 'no 16 bytes were given to both');
  });

  await t.test('a stopped guest leaves the other one served', async (t) => {
    await first.stop();
    t.equal((await second.readHwrng(LENGTH)).length, LENGTH);
    await first.cont();
    t.equal((await first.readHwrng(LENGTH)).length, LENGTH);
  });

  await t.test('one powers off, the other reads on', async (t) => {
    t.match(await first.powerOff(), { code: 0 });
    t.equal((await second.readHwrng(LENGTH)).length, LENGTH);
  });

  await t.test('SIGTERM under a running guest: the daemon ends with 0, the guest lives', async (t) => {
    t.match(await daemon.stop(), { code: 0 });
    t.equal(await second.output('echo alive'), 'alive');
  });
});

/** Counts the aligned 16-byte blocks that stand in both. */
function countSharedBlocks(a: Buffer, b: Buffer): number {
  const blocks = new Set(blocksOf(a));
  return blocksOf(b).filter((block) => blocks.has(block)).length;
}

function blocksOf(bytes: Buffer): readonly string[] {
  return Array.from({ length: bytes.length / 16 }, (_, index) =>
    bytes.toString('hex', index * 16, index * 16 + 16),
  );
}
