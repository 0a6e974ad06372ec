// The rate limit as the guest sees it, on the guest's own clock: --max-bytes=1024 --period=1000 is 1 KiB/s.
//
// The guest reads 64 bytes at a time, as fast as it can, and looks at its clock after each. What stands between the
// limiter and this reader: the driver keeps one answered request that nobody has read yet, so the very first 64 bytes are
// older than the measurement; and the kernel's own pool takes 64 bytes every few seconds, which the device's interrupts
// (one for each answered request) show.
import t from 'tap';
import { endToEnd } from '../support/guest/end-to-end.js';
import type { Guest } from '../support/guest/guest.js';

const MAX_BYTES = 1024;
const PERIOD_S = 1;

/** What the Linux driver asks for at a time. */
const REQUEST_BYTES = 64;

const READS_PER_PERIOD = MAX_BYTES / REQUEST_BYTES;

/** The rate is taken over so many periods. */
const PERIODS = 24;

/** One period more than is judged: from each of its reads on `PERIODS` are measured. */
const READS = (PERIODS + 1) * READS_PER_PERIOD;

/** Longer than two periods: all quota has come back, and the driver's one request is answered. */
const PAUSE_S = 2.5;

/** /proc/uptime counts hundredths and cuts off what is less. */
const CLOCK_STEP_S = 0.01;

const TOLERANCE = 0.02;

await endToEnd(t, async (scene) => {
  const socketPath = scene.socketPath('rng');
  const daemon = await scene.startDaemon(
    `--socket-path=${socketPath}`,
    `--max-bytes=${MAX_BYTES}`,
    `--period=${PERIOD_S * 1000}`,
  );
  const guest = await scene.bootGuest(socketPath);

  await t.test('1 KiB/s within 2 %, never more', async (t) => {
    const { startS, timesS, answered } = await readAsFastAsPossible(guest);
    t.equal(timesS.length, READS);

    // However late a busy machine looks at its clock, that only makes a read later than it was.
    const early = timesS.filter(
      (timeS, index) => index * REQUEST_BYTES > allowance(timeS + CLOCK_STEP_S - startS),
    );
    t.strictSame(early, [], 'at no moment has the guest got more than the periods so far allow');

    const rate = averageRate(timesS, answered - READS);
    t.comment(`${rate.toFixed(1)} bytes/s, ${answered - READS} requests by the kernel itself`);
    t.ok(Math.abs(rate / (MAX_BYTES / PERIOD_S) - 1) < TOLERANCE, 'within 2 %', { rate, timesS });
  });

  await t.test('a guest at its limit is stopped and reset without delay, and reads on', async (t) => {
    t.match(await guest.run('dd if=/dev/hwrng of=/dev/null bs=4096 count=1000 & sleep 0.5'), { status: 0 });
    await guest.stop();
    await guest.cont();
    await guest.reset();
    t.equal((await guest.readHwrng(512)).length, 512);
  });

  await t.test('SIGTERM while a request is held ends the daemon with 0', async (t) => {
    t.match(await guest.run('dd if=/dev/hwrng of=/dev/null bs=4096 count=1000 & sleep 0.5'), { status: 0 });
    t.match(await daemon.stop(), { code: 0 });
  });
});

interface Readings {
  /** The guest's uptime before the first read, in seconds, and after each. */
  readonly startS: number;
  readonly timesS: readonly number[];
  /** Requests that the device answered meanwhile, whoever asked. */
  readonly answered: number;
}

async function readAsFastAsPossible(guest: Guest): Promise<Readings> {
  const printInterrupts = `awk '/virtio0/ { sum += $2 } END { print sum }' /proc/interrupts`;
  const printUptime = 'read now idle < /proc/uptime; echo $now';
  const readOnce = `dd if=/dev/hwrng of=/dev/null bs=${REQUEST_BYTES} count=1 2>/dev/null`;
  const text = await guest.output(
    [
      `sleep ${PAUSE_S}; ${printInterrupts}; ${printUptime}`,
      `for round in $(seq ${READS}); do ${readOnce}; ${printUptime}; done`,
      printInterrupts,
    ].join('; '),
    READS * 1000,
  );
  const numbers = text.split('\n').map(Number);
  const [interruptsBefore = NaN, startS = NaN] = numbers;
  return { startS, timesS: numbers.slice(2, -1), answered: (numbers.at(-1) ?? NaN) - interruptsBefore };
}

/** The bytes that may have been delivered in so many seconds after a pause. */
function allowance(seconds: number): number {
  return MAX_BYTES * (1 + Math.floor(seconds / PERIOD_S));
}

/**
 * Bytes per second that the device delivered, the kernel's own share included.
 *
 * Reads come in bursts, one a period; the time from each read of the first period to its counterpart `PERIODS` later is
 * averaged, so that it does not matter where in a burst the measurement begins.
 */
function averageRate(timesS: readonly number[], byKernel: number): number {
  const spans = timesS.slice(0, READS_PER_PERIOD).map((startS, index) => {
    return (timesS[index + PERIODS * READS_PER_PERIOD] ?? NaN) - startS;
  });
  const meanS = spans.reduce((sum, span) => sum + span, 0) / spans.length;
  return (PERIODS * MAX_BYTES + byKernel * REQUEST_BYTES) / meanS;
}
