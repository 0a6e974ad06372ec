// What an operator does, with real guests, by the words of the README: two devices from a file, two guests, a look with top, a
// limit that is halved under a guest, a source that is pulled and comes back, a broken file that is reloaded.
//
// The source is a FIFO that the test feeds (`--allow-test-sources`), so that it can be pulled.
import { writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import t from 'tap';
import { STARTUP_BYTES } from '../support/fed-sources.js';
import { type CtlRun, runCtl } from '../support/ctl-run.js';
import { makeFifo } from '../support/fifo.js';
import { goodBytes } from '../support/good-bytes.js';
import { endToEnd } from '../support/guest/end-to-end.js';
import type { Guest } from '../support/guest/guest.js';

/** What the Linux driver asks for at a time. */
const REQUEST_BYTES = 64;
/** Reads of a guest in a second, before and after its limit is halved. */
const READS_BEFORE = 32;
const READS_AFTER = READS_BEFORE / 2;
/** A change must be in force in the guest within this time, and is measured for so long behind it. */
const IN_FORCE_S = 1;
const MEASURED_S = 4;
/** /proc/uptime counts hundredths; the driver keeps one answered request; a window may begin anywhere in a burst. */
const SLACK_READS = 3;
const PATIENCE_MS = 30_000;

/** Reads 64 bytes after the other in the background, and keeps the guest's time of each. */
const READ_ON =
  'while :; do dd if=/dev/hwrng of=/dev/null bs=64 count=1 2>/dev/null; read now idle < /proc/uptime; echo $now; done > /tmp/reads &';

async function uptimeS(guest: Guest): Promise<number> {
  return Number(await guest.output('read now idle < /proc/uptime; echo $now'));
}

/** How often the guest has read between two of its times. */
async function readsBetween(guest: Guest, fromS: number, toS: number): Promise<number> {
  return Number(await guest.output(`awk '$1 >= ${fromS} && $1 < ${toS}' /tmp/reads | wc -l`));
}

await endToEnd(t, async (scene) => {
  const fifo = makeFifo(t);
  let stream = 1;
  const feed = (): void => {
    try {
      fifo.write(goodBytes(STARTUP_BYTES, stream++));
    } catch {
      // The pipe is full: the guests have taken less than they may.
    }
  };
  // A pipe's worth at once, then as much as both guests take in a second.
  for (let i = 0; i < 15; i++) feed();
  let fed = setInterval(feed, 400);
  t.teardown(() => clearInterval(fed));

  const [control, web1, web2, config] = ['control', 'web1', 'web2', 'config'].map((name) =>
    scene.socketPath(name),
  );
  if (control === undefined || web1 === undefined || web2 === undefined || config === undefined)
    throw new Error();
  const limit = `max-bytes = ${READS_BEFORE * REQUEST_BYTES}\nperiod = 1000\n`;
  const write = (more: string): void =>
    writeFileSync(
      config,
      `sources = ["file:${fifo.path}"]\nallow-test-sources = true\n${limit}[[device]]\nname = "web1"\nsocket-path = "${web1}"\n` +
        `[[device]]\nname = "web2"\nsocket-path = "${web2}"\n${more}[control]\nsocket = "${control}"\n`,
    );
  write('');
  const daemon = await scene.startDaemon(`--config=${config}`);
  await daemon.waitForLog(/\[listening\][^]*\[listening\]/, PATIENCE_MS);
  const ctl = (...args: readonly string[]): Promise<CtlRun> => runCtl(['--control-socket', control, ...args]);
  const [first, second] = await Promise.all([scene.bootGuest(web1), scene.bootGuest(web2)]);
  await Promise.all([first.run(READ_ON), second.run(READ_ON)]);

  await t.test('top and status show both guests at work', async (t) => {
    await setTimeout(2000);
    const top = await ctl('top', '--once', '--interval', '2');
    t.equal(top.status, 0);
    t.match(top.stdout, /2 guests/);
    for (const name of ['web1', 'web2']) {
      const [, rate = ''] = new RegExp(`^ *${name} .*?([\\d.]+ [KM]?i?B)/s`, 'm').exec(top.stdout) ?? [];
      t.match(rate, /\d/, `${name} has a rate: ${rate}`);
    }
    t.match((await ctl('status')).stdout, /^web1 +(running|held: limit) +pid \d+/m);
  });

  await t.test(
    'the limit of one is halved: in force in that guest within a second, and in no other',
    async (t) => {
      await setTimeout(MEASURED_S * 1000);
      t.match(await ctl('set', 'web1', '--max-bytes', String(READS_AFTER * REQUEST_BYTES)), { status: 0 });
      const [changedS, otherS] = [await uptimeS(first), await uptimeS(second)];
      await setTimeout((IN_FORCE_S + MEASURED_S) * 1000 + 500);
      const before = await readsBetween(first, changedS - MEASURED_S, changedS - IN_FORCE_S / 2);
      const fromS = changedS + IN_FORCE_S;
      const after = await readsBetween(first, fromS, fromS + MEASURED_S);
      const other = await readsBetween(second, otherS, otherS + MEASURED_S);
      t.comment(
        `${before} reads in ${MEASURED_S - IN_FORCE_S / 2} s before, ${after} in ${MEASURED_S} s after, ${other} of the other guest`,
      );
      t.ok(after <= MEASURED_S * READS_AFTER + SLACK_READS, 'no more than the new limit');
      t.ok(after >= 0.7 * MEASURED_S * READS_AFTER, 'and what it allows');
      t.ok(before > after, 'it was more before');
      t.ok(other > after, 'the other guest has kept its limit');
    },
  );

  await t.test('the source is pulled: health turns, guests wait; it is back: they read on', async (t) => {
    clearInterval(fed);
    fifo.unplug();
    await daemon.waitForLog(/health is failing: .*come to its end/, PATIENCE_MS);
    t.match(await ctl('health'), {
      status: 2,
      stdout: /^health: failing\n[^]*source file:.*come to its end/,
    });
    fifo.plug();
    for (let i = 0; i < 10; i++) feed();
    fed = setInterval(feed, 400);
    await daemon.waitForLog(/health is failing[^]*health is ok/, PATIENCE_MS);
    t.match(await ctl('health'), { status: 0 });
    const nowS = await uptimeS(first);
    await setTimeout(2000);
    t.ok((await readsBetween(first, nowS, nowS + 2)) > 0, 'the guest reads on');
  });

  await t.test('a broken file is refused with its line, and guests do not notice', async (t) => {
    write('mem-slots = "many"\n');
    t.match(await ctl('reload'), { status: 65, stderr: /:\d+: .*mem-slots: expected an integer/ });
    const nowS = await uptimeS(second);
    await setTimeout(2000);
    t.ok((await readsBetween(second, nowS, nowS + 2)) > 0);
    t.match(await daemon.stop(), { code: 0 });
  });
});
