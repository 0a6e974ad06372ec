// The source egd:unix against an EGD server that none of us wrote (Debian's entropybroker): a guest is served from it, by
// another source while it is away, and from it again when it is back. Rows 163 and F27 of ARCHITECTURE.md's promises.
//
// The front-end is the synthetic one: what is real here is the server.
import t from 'tap';
import { EntropyBroker, hasEntropyBroker } from '../support/entropy-broker.js';
import { startRngDaemon } from '../support/rng-daemon.js';
import { VirtualMachine } from '../support/virtual-machine.js';

const HINT = 'type: sudo apt-get install --no-install-recommends entropybroker';
/** The broker lets its clients wait for seconds before they may try again. */
const PATIENCE_MS = 90_000;

if (hasEntropyBroker()) {
  t.setTimeout(300_000);
  await t.test('eb_client_egd serves a guest, goes, and is back', async (t) => {
    const broker = await EntropyBroker.start(t);
    const { daemon, path } = await startRngDaemon(t, {
      args: [`--source=egd:unix:${broker.socketPath}`, '--source=getrandom'],
    });
    await daemon.waitForLog(/egd:unix:\S+ is healthy: .*\[source_ready\]/, PATIENCE_MS);
    const vm = VirtualMachine.start(path);
    t.teardown(() => vm.close());
    t.same(vm.request(), { id: 0, length: 64 });
    t.notMatch(daemon.log, /source_switch/, 'the bytes are the server’s');

    await broker.killServer();
    const switched = daemon.waitForLog(
      /getrandom serves now in the place of egd:.*\[source_switch\]/,
      PATIENCE_MS,
    );
    // What waits of the server's bytes is used up first.
    for (let requests = 0; !daemon.log.includes('[source_switch]') && requests < 10_000; requests++) {
      if (vm.request().length !== 64) t.fail('a request was not served in full');
      await new Promise((resolve) => setImmediate(resolve));
    }
    await switched;
    await daemon.waitForLog(/reading egd:unix:\S+ failed: .*; trying again \[source_failed\]/, PATIENCE_MS);

    await broker.startServer();
    await daemon.waitForLog(/egd:unix:\S+ delivers again: .*\[source_back\]/, PATIENCE_MS);
    t.same(vm.request(), { id: 0, length: 64 });
    t.match(await daemon.stop(), { code: 0 });
  });
} else if (process.env['VHOST_RNGD_REQUIRE_E2E'] === '1') {
  t.fail(`entropybroker is missing, which VHOST_RNGD_REQUIRE_E2E=1 requires; ${HINT}`);
} else {
  process.stderr.write(`\n*** END-TO-END TEST SKIPPED, entropybroker is not installed; ${HINT}\n\n`);
  t.plan(0, `entropybroker is not installed; ${HINT}`);
}
