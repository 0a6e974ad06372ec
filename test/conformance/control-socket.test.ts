// Bad input on the control socket: rows 165 to 173 and 176 of ARCHITECTURE.md, "Bad input", "Control socket".
//
// Leaves out: JSON case by case (test/daemon/control/json), a watcher of events that does not read (test/daemon/control/events),
// changes that are in order (control-devices), the configuration (config-file).
import { spawnSync } from 'node:child_process';
import { chmodSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { EPOLLRDHUP } from '../../shared-memory/epoll.js';
import { poll } from '../../shared-memory/libc.js';
import { asFd, closeFd } from '../../shared-memory/fd.js';
import { connectTo, openSocket } from '../../shared-memory/unix-socket.js';
import { ask, RawClient } from '../support/control-client.js';
import {
  eventually,
  openFdCount,
  type RngDaemon,
  startRngDaemon,
  temporaryFolder,
} from '../support/rng-daemon.js';
import { goodBytes } from '../support/good-bytes.js';
import { startProcess, waitUntilLive } from '../support/started-process.js';
import { DATA_BASE, VirtualMachine } from '../support/virtual-machine.js';

const PEER = fileURLToPath(new URL('../support/control-peer.js', import.meta.url));
const NOBODY = '65534';
/** The daemon's own bound. */
const MAX_CONNECTIONS = 16;

interface Controlled extends RngDaemon {
  readonly control: string;
}

async function startControlled(t: Test, args: readonly string[] = [], devices = 1): Promise<Controlled> {
  const control = join(temporaryFolder(t), 'control.sock');
  chmodSync(join(control, '..'), 0o755);
  const started = await startRngDaemon(t, { devices, args: [`--control-socket=${control}`, ...args] });
  return { ...started, control };
}

/** Waits until its sources have passed their start-up tests: it is failing before. */
async function waitHealthy(control: string): Promise<void> {
  while ((await ask(control, 'GET /healthz')).status !== 200);
}

/** A request by a process of another user. */
function askAs(
  user: string,
  control: string,
  line: string,
  body?: string,
): { status?: number; text?: string; closed?: string } {
  const command = [process.execPath, PEER, control, line, ...(body === undefined ? [] : [body])];
  const { stdout } = spawnSync(
    'setpriv',
    [`--reuid=${user}`, `--regid=${user}`, '--clear-groups', ...command],
    {
      encoding: 'utf8',
      timeout: 20_000,
    },
  );
  return JSON.parse(stdout) as { status?: number; text?: string; closed?: string };
}

const asRoot = process.getuid?.() === 0 ? {} : { skip: 'becoming another user needs root' };

await t.test(
  'row 165: who may not read is closed before anything is read, and counted',
  asRoot,
  async (t) => {
    const { control } = await startControlled(t, [`--control-group=${NOBODY}`, '--control-readers=1']);
    t.match(askAs(NOBODY, control, 'GET /healthz'), { closed: /^(ECONNRESET|EPIPE)$/ });
    t.match(await ask(control, 'GET /readyz'), { status: 200 }, 'the daemon itself may');
    t.match((await ask(control, 'GET /metrics')).text, /^vhost_rngd_control_connections_refused_total 1$/m);
  },
);

await t.test('row 165: who is neither owner nor in the group cannot connect', asRoot, async (t) => {
  const { control } = await startControlled(t);
  t.match(askAs(NOBODY, control, 'GET /healthz'), { closed: 'EACCES' });
});

await t.test('the group may look; only root, the daemon and its admins may change', asRoot, async (t) => {
  const { control } = await startControlled(t, [`--control-group=${NOBODY}`]);
  t.match(askAs(NOBODY, control, 'GET /v1/status'), { status: 200 });
  const refused = askAs(NOBODY, control, 'PATCH /v1/devices/rng0', '{"paused":true}');
  t.match(refused, { status: 403, text: /not_allowed.*got uid 65534/ });
  t.match(await ask(control, 'GET /v1/devices/rng0'), { json: { state: 'listening' } }, 'unchanged');
  const other = await startControlled(t, [`--control-group=${NOBODY}`, `--control-admins=${NOBODY}`]);
  t.match(askAs(NOBODY, other.control, 'PATCH /v1/devices/rng0', '{"paused":true}'), { status: 200 });
  await other.daemon.waitForLog(/rng0: changed: paused \(by uid 65534, pid \d+\) \[device_changed\]/, 5000);
});

await t.test('row 167: an incomplete request is closed', async (t) => {
  const { control, daemon } = await startControlled(t);
  const parts = [
    '',
    'PATCH /v1/dev',
    'PATCH /v1/devices/rng0 HTTP/1.1\r\nHost: x\r\n',
    'PATCH /v1/devices/rng0 HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{"pau',
    'PATCH /v1/devices/rng0 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"pau',
  ];
  const before = openFdCount(daemon.pid);
  const clients = parts.map((part) => {
    const client = new RawClient(control);
    client.send(part);
    return client;
  });
  t.ok(await eventually(() => openFdCount(daemon.pid) >= before + parts.length), 'all are taken');
  for (const [i, client] of clients.entries()) t.ok(await client.waitForEnd(), `closed: '${parts[i] ?? ''}'`);
  t.match(await ask(control, 'GET /v1/devices/rng0'), { json: { state: 'listening' } }, 'unchanged');
  t.match((await ask(control, 'GET /metrics')).text, /^vhost_rngd_control_connections_timed_out_total 5$/m);
  t.notMatch(daemon.log, /internal/);
});

/** Bodies of PATCH /v1/devices/rng0, and what the refusal says. */
const BODIES: readonly (readonly [string, string | Uint8Array, object])[] = [
  ['row 168: invalid UTF-8', Buffer.from([0x7b, 0xff, 0x7d]), { code: 'bad_json', message: /UTF-8/ }],
  ['row 168: NUL', '{"paused":"\\u0000"}', { code: 'bad_json' }],
  ['row 168: half a surrogate pair', '{"\\ud800":1}', { code: 'bad_json' }],
  ['row 168: a key twice', '{"paused":true,"paused":false}', { code: 'bad_json', message: /paused twice/ }],
  ['row 168: __proto__', '{"__proto__":{"paused":true}}', { code: 'bad_json', message: /__proto__/ }],
  ['row 168: constructor', '{"constructor":{}}', { code: 'bad_json', message: /constructor/ }],
  ['row 169: a wrong type', '{"paused":"yes"}', { code: 'bad_field', field: 'paused', message: /got "yes"/ }],
  ['row 169: a wrong type inside', '{"limit":{"maxBytes":"1","periodMs":1}}', { field: 'limit.maxBytes' }],
  ['row 169: an extra field', '{"paused":true,"colour":1}', { code: 'bad_field', field: 'colour' }],
  ['row 169: an extra field inside', '{"limit":{"maxBytes":1,"periodMs":1,"x":1}}', { field: 'limit.x' }],
  ['row 169: a missing field', '{"paused":true,"limit":{"maxBytes":1}}', { field: 'limit.periodMs' }],
  ['row 169: out of range', '{"limit":{"maxBytes":0,"periodMs":1}}', { field: 'limit.maxBytes' }],
  ['row 169: not an object', '[true]', { code: 'bad_field' }],
  ['no body', '', { code: 'bad_field' }],
];

await t.test('rows 168 and 169: a body that is wrong is refused, and nothing changes', async (t) => {
  const { control, daemon } = await startControlled(t);
  for (const [title, body, error] of BODIES) {
    t.match(await ask(control, 'PATCH /v1/devices/rng0', body), { status: 400, json: { error } }, title);
  }
  const large = await ask(control, 'PATCH /v1/devices/rng0', `{"paused":${' '.repeat(65_536)}true}`).catch(
    () => undefined,
  );
  if (large !== undefined) t.match(large, { status: 413, json: { error: { code: 'body_too_large' } } });
  t.match(await ask(control, 'GET /v1/devices/rng0'), { json: { state: 'listening', limit: null } });
  t.notMatch(daemon.log, /device_changed|internal/);
});

await t.test('row 169: unknown verbs and paths', async (t) => {
  const { control } = await startControlled(t);
  t.match(await ask(control, 'PUT /v1/status'), {
    status: 405,
    json: { error: { code: 'method', message: /GET/ } },
  });
  t.match(await ask(control, 'GET /v1/nothing'), { status: 404, json: { error: { code: 'unknown_route' } } });
  t.match(await ask(control, 'GET /v1/devices/'), { status: 404 });
  t.match(await ask(control, 'GET /v1/devices/a/b'), { status: 404 });
  t.match(await ask(control, 'GET /v1/devices/%ff'), {
    status: 404,
    json: { error: { code: 'unknown_route' } },
  });
  t.match(await ask(control, 'GET /v1/devices/none'), {
    status: 404,
    json: { error: { code: 'unknown_device' } },
  });
  for (const bytes of [
    'FROB / HTTP/1.1\r\n\r\n',
    '\0\0\0\0\r\n\r\n',
    'GET / HTTP/1.1\r\nno colon\r\n\r\n',
    'GET /'.repeat(4096),
  ]) {
    const client = new RawClient(control);
    client.send(bytes);
    t.ok(await client.waitForEnd(), 'closed');
    t.match(client.received, /^(HTTP\/1.1 400 |$)/);
  }
});

await t.test('one request for each connection, whatever is sent behind it', async (t) => {
  const { control } = await startControlled(t);
  await waitHealthy(control);
  const client = new RawClient(control);
  client.send('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(500));
  t.ok(await client.waitForEnd());
  t.equal(client.received.match(/HTTP\/1.1 200/g)?.length, 1);
  t.match(await ask(control, 'GET /healthz'), { status: 200 });
});

await t.test('row 171: what a terminal would act on is escaped in replies and in the log', async (t) => {
  const { control, daemon } = await startControlled(t);
  const name = '\x1b[2J\n\x9b31m\x7f';
  const url = `/v1/devices/${encodeURIComponent(name)}`;
  const answers = [
    await ask(control, `DELETE ${url}`),
    await ask(control, `PATCH ${url}`, { paused: true }),
    await ask(control, 'POST /v1/devices', { name, socket: '/tmp/x' }),
    await ask(control, 'POST /v1/devices', { name: 'x', socket: `/tmp/${name}` }),
    await ask(control, 'PATCH /v1/devices/rng0', { [name]: 1 }),
  ];
  for (const { status, text } of answers) {
    t.ok(status >= 400);
    t.notMatch(text.slice(0, -1), /\p{Cc}/u, JSON.stringify(text));
  }
  t.notMatch(daemon.log.replaceAll('\n', ''), /\p{Cc}/u);
});

await t.test(
  'row 172: a thousand connections: 16 at most are open, and another process is answered',
  async (t) => {
    const { control, daemon } = await startControlled(t);
    const before = openFdCount(daemon.pid);
    const clients = Array.from({ length: 1000 }, () => new RawClient(control));
    t.ok(
      await eventually(() => clients.filter(({ closed }) => closed).length >= 1000 - MAX_CONNECTIONS, 20_000),
    );
    t.ok(
      await eventually(() => openFdCount(daemon.pid) <= before + MAX_CONNECTIONS),
      'no more descriptors than that',
    );
    const { stdout } = spawnSync(process.execPath, [PEER, control, 'GET /healthz'], {
      encoding: 'utf8',
      timeout: 20_000,
    });
    t.match(JSON.parse(stdout), { status: 200 });
    const displaced = /^vhost_rngd_control_connections_displaced_total (\d+)$/m.exec(
      (await ask(control, 'GET /metrics')).text,
    );
    // Some found the backlog full and were not connected at all.
    t.ok(Number(displaced?.[1]) > 0, `displaced: ${displaced?.[1] ?? 'none'}`);
    for (const client of clients) client.close();
  },
);

await t.test('row 172: 10 000 requests in a row are answered, with health in between', async (t) => {
  const { control } = await startControlled(t, [], 8);
  await waitHealthy(control);
  let answered = 0;
  let healthy = 0;
  await Promise.all(
    Array.from({ length: 8 }, async (_, worker) => {
      for (let i = 0; i < 1250; i++) {
        const isHealth = worker === 0 && i % 10 === 0;
        const { status } = await ask(control, isHealth ? 'GET /healthz' : 'GET /v1/status');
        if (status === 200) answered++;
        if (status === 200 && isHealth) healthy++;
      }
    }),
  );
  t.equal(answered, 10_000);
  t.equal(healthy, 125);
});

await t.test('row 173: who never reads its reply is closed', async (t) => {
  const folder = temporaryFolder(t);
  const control = join(folder, 'control.sock');
  const paths = Array.from({ length: 150 }, (_, i) => `--socket-path=${join(folder, `${i}.sock`)}`);
  startProcess(t, [`--control-socket=${control}`, ...paths], { stdio: 'ignore' });
  await waitUntilLive(control);
  while ((await ask(control, 'GET /readyz')).status !== 200);
  const client = asFd(openSocket({ nonBlocking: false }));
  t.teardown(() => closeFd(client));
  t.equal(connectTo(client, control), 0);
  // The reply is larger than the socket holds.
  writeSync(client, 'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n');
  const hasEnded = (): boolean => (poll(client, EPOLLRDHUP, 0) & EPOLLRDHUP) !== 0;
  t.ok(await eventually(hasEnded, 15_000), 'the daemon has closed it');
  t.match((await ask(control, 'GET /metrics')).text, /^vhost_rngd_control_connections_timed_out_total 1$/m);
});

await t.test('row 176: neither entropy nor guest addresses show anywhere', async (t) => {
  const folder = temporaryFolder(t);
  const known = goodBytes(65_536);
  writeFileSync(join(folder, 'known'), known);
  const { control, daemon, path } = await startControlled(t, [
    '--allow-test-sources',
    `--source=file:${join(folder, 'known')}`,
  ]);
  const vm = VirtualMachine.start(path);
  t.equal(vm.request(64).length, 64);
  const given = Buffer.from(vm.ram.view(DATA_BASE, 64));
  t.ok(known.includes(given), 'the guest has been given known bytes');
  const paths = [
    '/healthz',
    '/readyz',
    '/metrics',
    '/v1/status',
    '/v1/devices',
    '/v1/devices/rng0',
    '/v1/sources',
    '/openapi.json',
  ];
  const texts = [daemon.log];
  for (const path of paths) texts.push((await ask(control, `GET ${path}`)).text);
  vm.close();
  const secret = given.subarray(0, 12);
  const secrets = [secret.toString('latin1'), secret.toString('hex'), secret.toString('base64')];
  const addresses = [`0x${DATA_BASE.toString(16)}`, `:${DATA_BASE}`, '0x10000"', ':65536'];
  for (const text of texts) {
    for (const secret of [...secrets, ...addresses]) t.notOk(text.includes(secret), secret);
  }
});
