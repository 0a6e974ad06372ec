// What the EGD client has handed out, and the fragment of a reply that it threw away, are nowhere in its process's memory.
// The client runs in a child process, which this one looks through; a child that keeps one chunk shows that the look finds it.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { EgdServer } from '../../support/egd-server.js';
import { countInMemory } from '../../support/process-memory.js';
import { temporaryFolder } from '../../support/rng-daemon.js';

const CLIENT = new URL('../../../daemon/entropy/egd-client.js', import.meta.url).href;
const REPLY_BYTES = 255;
const REPLIES = 100;
const MARKER_BYTES = 32;

/** Takes `REPLIES` replies and says so, then waits; `onChunk` is what it does with each. */
const CHILD = (path: string, onChunk: string): string => `
  import { EgdClient } from '${CLIENT}';
  const kept = [];
  let got = 0;
  const client = new EgdClient({ kind: 'unix', path: '${path}' }, {
    bytes: (chunk) => { ${onChunk} got += chunk.length; if (got === ${REPLIES * REPLY_BYTES}) setImmediate(() => console.log('done')); },
    empty: () => {}, connected: () => {}, failed: () => {},
  }, { firstRetryMs: 1, longestRetryMs: 2 });
  client.want(${REPLIES * REPLY_BYTES});
  setInterval(() => kept, 1000);
`;

/** How often the server's marker is in a client's memory after it has come in each of 100 replies and in a fragment. */
async function markersLeft(t: Test, onChunk: string): Promise<number> {
  const marker = randomBytes(MARKER_BYTES);
  const reply = Buffer.concat([Buffer.of(REPLY_BYTES), Buffer.alloc(REPLY_BYTES, marker)]);
  const path = join(temporaryFolder(t), 'egd.sock');
  const server = await EgdServer.listen({ kind: 'unix', path }, (connection) => {
    if (server.connections.length > 1) connection.send(reply);
    if (server.connections.length > 1 || connection.requests.length > 1) return;
    connection.send(reply.subarray(0, 200));
    connection.end();
  });
  t.teardown(() => server.kill());
  const child = spawn(process.execPath, ['--input-type=module', '-e', CHILD(path, onChunk)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const [output] = (await once(child.stdout, 'data')) as [Buffer];
  t.equal(output.toString(), 'done\n');
  t.equal(server.connections.length, 2);
  return countInMemory(child.pid ?? 0, marker);
}

t.test('nothing of 100 replies and a fragment is left', async (t) => {
  t.equal(await markersLeft(t, ''), 0);
});

t.test('the measure itself: one chunk that is kept is found', async (t) => {
  t.ok((await markersLeft(t, 'if (got === 0) kept.push(Buffer.from(chunk));')) >= 1);
});
