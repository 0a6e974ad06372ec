// Whoever asks a daemon that has only just started, or starts it by asking, is told how it is once its sources have passed their
// start-up tests. The daemon is a stand-in here, since a real one is ready too soon.
import { createServer } from 'node:http';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { isOnlyStarting, judgeHealth } from '../../../daemon/control/health.js';
import type { Health, SourceStatus } from '../../../daemon/control/shapes.js';
import { runCtl } from '../../support/ctl-run.js';
import { temporaryFolder } from '../../support/rng-daemon.js';

const REASON = 'it has not passed its start-up test yet';
const STARTING: Health = {
  status: 'failing',
  reasons: [
    'no source is healthy: requests are held until one is',
    `source random:/dev/random is starting: ${REASON}`,
  ],
};
const OK: Health = { status: 'ok', reasons: [] };

/** Answers each request with the next of these, and from then on with the last. */
async function answering(
  t: Test,
  answers: readonly Health[],
): Promise<{ path: string; asked: () => number }> {
  const path = join(temporaryFolder(t), 'control.sock');
  let asked = 0;
  const server = createServer((_request, response) => {
    const health = answers[Math.min(asked++, answers.length - 1)];
    response.writeHead(health?.status === 'failing' ? 503 : 200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(health));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.teardown(() => server.close());
  return { path, asked: () => asked };
}

await t.test('health of a daemon that has only just started', async (t) => {
  const { path, asked } = await answering(t, [STARTING, STARTING, OK]);
  t.match(await runCtl([`--control-socket=${path}`, 'health']), { status: 0, stdout: 'health: ok\n' });
  t.equal(asked(), 3);
});

await t.test('health with another reason is told at once', async (t) => {
  const failing: Health = { ...STARTING, reasons: [...STARTING.reasons, '5 log lines were lost'] };
  const { path, asked } = await answering(t, [failing, OK]);
  t.match(await runCtl([`--control-socket=${path}`, 'health']), { status: 2, stdout: /^health: failing/ });
  t.equal(asked(), 1);
});

await t.test('a source that goes on starting is told after 5 s', async (t) => {
  const { path } = await answering(t, [STARTING]);
  const { status, seconds } = await runCtl([`--control-socket=${path}`, 'health']);
  t.equal(status, 2);
  t.ok(seconds > 4 && seconds < 20, `${seconds} s`);
});

await t.test('what is only a start', (t) => {
  const judged = (states: readonly SourceStatus['state'][], droppedLogLines = 0): boolean =>
    isOnlyStarting(
      judgeHealth({
        dataPlaneTurns: true,
        sources: states.map((state) => source(state)),
        droppedLogLines,
        poolLocked: true,
        missingSockets: [],
      }),
    );
  t.ok(judged(['starting']));
  t.ok(judged(['starting', 'healthy', 'starting']), 'degraded, for a moment');
  t.notOk(judged(['healthy']));
  t.notOk(judged(['starting', 'failed']));
  t.notOk(judged(['starting', 'slow']));
  t.notOk(judged(['starting'], 1));
  t.notOk(judged([]));
  t.end();
});

function source(state: SourceStatus['state']): SourceStatus {
  return {
    spec: 'random:/dev/random',
    state,
    reason: state === 'healthy' ? null : REASON,
    permanent: false,
    minEntropy: 8,
    bytes: 0,
    failures: 0,
    reopens: 0,
    alarms: { repetition: 0, adaptive: 0, permanent: 0 },
    repeatedBlocks: 0,
    fips: { blocks: 0, failures: 0 },
  };
}
