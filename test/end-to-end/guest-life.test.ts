// One guest from boot to power-off, and the next one on the same socket: the whole data path under a real virtio-rng
// driver. Left out: other drivers than Linux's, other VMMs than the installed QEMU.
import { existsSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import t from 'tap';
import { endToEnd } from '../support/guest/end-to-end.js';
import {
  BLOCK_BYTES,
  countFipsFailures,
  TOLERATED_FAILURES_PER_MEBIBYTE,
} from '../support/guest/fips-140-2.js';
import { openFiles } from '../support/guest/proc-files.js';
import { findProgram, runProgram } from '../support/guest/program.js';

const MEBIBYTE = 1 << 20;

const CURRENT_RNG = 'cat /sys/class/misc/hw_random/rng_current';

await endToEnd(t, async (scene) => {
  const socketPath = scene.socketPath('rng');
  const daemon = await scene.startDaemon(`--socket-path=${socketPath}`);
  const guest = await scene.bootGuest(socketPath);

  await t.test("the guest's current generator is the virtio device", async (t) => {
    t.equal(await guest.output(CURRENT_RNG), 'virtio_rng.0');
  });

  await t.test('1 MiB from /dev/hwrng passes FIPS 140-2 and rngtest', async (t) => {
    t.equal(countFipsFailures(Buffer.alloc(BLOCK_BYTES)), 1, 'the judge refuses zeros');
    const bytes = await guest.readHwrng(MEBIBYTE);
    t.ok(countFipsFailures(bytes) <= TOLERATED_FAILURES_PER_MEBIBYTE, 'our own FIPS 140-2 check');
    if (findProgram('rngtest') === undefined) {
      t.comment('rngtest is missing (Debian package rng-tools5): our own check stands alone');
      return;
    }
    const { stderr } = await runProgram('rngtest', [], { input: bytes });
    const failures = /FIPS 140-2 failures: (\d+)/.exec(stderr)?.[1];
    t.ok(Number(failures) <= TOLERATED_FAILURES_PER_MEBIBYTE, 'rngtest', { stderr });
  });

  await t.test('the running daemon holds /dev/random open', async (t) => {
    t.ok(openFiles(daemon.pid).includes('/dev/random'), '/proc/PID/fd');
    const lsof = findProgram('lsof');
    if (lsof === undefined) {
      t.comment('lsof is missing: /proc/PID/fd stands alone');
      return;
    }
    const { stdout } = await runProgram(lsof, ['-t', '/dev/random']);
    t.ok(stdout.toString().split('\n').includes(String(daemon.pid)), 'lsof /dev/random');
  });

  await t.test('stop and cont: the guest reads on', async (t) => {
    await guest.stop();
    await guest.cont();
    t.equal((await guest.readHwrng(4096)).length, 4096);
  });

  await t.test('stop and cont in the middle of a read', async (t) => {
    const reading = guest.readHwrng(MEBIBYTE / 4);
    for (let round = 0; round < 5; round++) {
      await setTimeout(100);
      await guest.stop();
      await guest.cont();
    }
    t.equal((await reading).length, MEBIBYTE / 4);
  });

  await t.test('driver unbound and bound again', async (t) => {
    const driver = '/sys/bus/virtio/drivers/virtio_rng';
    t.equal(await guest.output(`echo virtio0 > ${driver}/unbind; ${CURRENT_RNG}`), 'none');
    t.equal(await guest.output(`echo virtio0 > ${driver}/bind; ${CURRENT_RNG}`), 'virtio_rng.0');
    t.equal((await guest.readHwrng(4096)).length, 4096);
  });

  await t.test('driver module removed and loaded again', async (t) => {
    t.equal(await guest.output(`rmmod virtio_rng; ${CURRENT_RNG}`), 'none');
    t.equal(await guest.output(`insmod /lib/modules/virtio_rng.ko; ${CURRENT_RNG}`), 'virtio_rng.0');
    t.equal((await guest.readHwrng(4096)).length, 4096);
  });

  await t.test('system_reset: the guest boots again and reads on', async (t) => {
    await guest.reset();
    t.equal(await guest.output(CURRENT_RNG), 'virtio_rng.0');
    t.equal((await guest.readHwrng(4096)).length, 4096);
  });

  await t.test('power-off, and a second guest on the same socket of the same daemon', async (t) => {
    t.match(await guest.powerOff(), { code: 0 });
    const second = await scene.bootGuest(socketPath);
    t.equal(await second.output(CURRENT_RNG), 'virtio_rng.0');
    t.equal((await second.readHwrng(4096)).length, 4096);
    t.match(await second.powerOff(), { code: 0 });
  });

  await t.test('SIGTERM ends the daemon with 0 and removes its socket', async (t) => {
    t.equal(existsSync(socketPath), true);
    t.match(await daemon.stop(), { code: 0 });
    t.equal(existsSync(socketPath), false);
  });
});
