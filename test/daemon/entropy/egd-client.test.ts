// The EGD client against servers that answer, lie, stall and go away. Rows 153 to 164 of the bad input, F27.
//
// The servers are ours (test/support/egd-server.ts) and run in this process; times are shortened where a title is about one.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { EgdAddress } from '../../../daemon/entropy/egd-address.js';
import { EgdClient, type EgdTiming } from '../../../daemon/entropy/egd-client.js';
import { type EgdBehaviour, EgdServer, honest, streamByte } from '../../support/egd-server.js';
import { eventually, temporaryFolder } from '../../support/rng-daemon.js';

/** So long is looked on where a title says that something does not happen, in ms. */
const LOOK_ON_MS = 50;

/** As short as a retry may be, so that a test does not wait for it. */
const RETRY_AT_ONCE: Partial<EgdTiming> = { firstRetryMs: 1, longestRetryMs: 2 };

/** A client, what it has received, and what it has told. */
function startClient(
  t: Pick<Test, 'teardown'>,
  address: EgdAddress,
  timing: Partial<EgdTiming> = RETRY_AT_ONCE,
) {
  const received: number[] = [];
  const told: string[] = [];
  let borrowed: Uint8Array | undefined;
  const client = new EgdClient(
    address,
    {
      bytes: (chunk) => {
        received.push(...chunk);
        borrowed = chunk;
      },
      empty: () => told.push('empty'),
      connected: () => told.push('connected'),
      failed: (reason) => told.push(reason),
    },
    timing,
  );
  t.teardown(() => client.close());
  return {
    client,
    received,
    told,
    /** The last chunk, which was lent for the time of the call only. */
    lastChunk: () => borrowed,
    has: (count: number) => eventually(() => received.length >= count),
    hasTold: (pattern: RegExp) => eventually(() => told.some((text) => pattern.test(text))),
  };
}

async function startServer(
  t: Pick<Test, 'teardown'>,
  behaviour: EgdBehaviour = honest,
  at?: EgdAddress,
): Promise<EgdServer> {
  const server = await EgdServer.listen(
    at ?? { kind: 'unix', path: join(temporaryFolder(t), 'egd.sock') },
    behaviour,
  );
  t.teardown(() => server.kill());
  return server;
}

/** The first bytes of every server's stream. */
function stream(count: number): number[] {
  return Array.from({ length: count }, (_, i) => streamByte(i));
}

/** Holds for every server in this file: 0x02 and 0x03 are never sent, nor a count of 0. */
function checkRequests(t: Test, server: EgdServer): void {
  const wrong = server.requests.filter(({ command, count }) => command !== 1 || count < 1);
  t.same(wrong, [], `row 161: all of ${server.requests.length} requests are 0x01 with a count from 1 to 255`);
}

for (const at of [
  undefined,
  { kind: 'tcp', host: '127.0.0.1', port: 0 },
  { kind: 'tcp', host: 'localhost', port: 0 },
] as const) {
  t.test(`exactly what is wanted arrives, in order, over ${at?.host ?? 'a Unix socket'}`, async (t) => {
    const server = await startServer(t, honest, at);
    const { client, received, told, has, lastChunk } = startClient(t, server.address);
    client.want(1);
    t.ok(await has(1));
    client.want(10_000);
    client.want(99);
    t.ok(await has(10_100));
    t.same(received, stream(10_100));
    t.equal(
      server.requests.reduce((sum, { count }) => sum + count, 0),
      10_100,
      'no byte more is asked for',
    );
    t.same(told, ['connected']);
    t.ok(
      lastChunk()?.every((byte) => byte === 0),
      'what was lent is wiped',
    );
    checkRequests(t, server);
  });
}

t.test('a server that listens on IPv4 only is reached by a name that has an IPv6 address too', async (t) => {
  const server = await startServer(t, honest, { kind: 'tcp', host: '127.0.0.1', port: 0 });
  if (server.address.kind !== 'tcp') throw new Error('it was bound to a port');
  const { client, has } = startClient(t, { ...server.address, host: 'localhost' });
  client.want(100);
  t.ok(await has(100));
});

t.test('four requests are in flight, no more', async (t) => {
  let most = 0;
  const server = await startServer(t, (connection) => {
    most = Math.max(most, connection.pending.length);
    if (connection.pending.length === 4) for (let i = 0; i < 4; i++) connection.answer();
  });
  const { client, received, has } = startClient(t, server.address);
  client.want(40 * 255);
  t.ok(await has(40 * 255));
  t.same(received, stream(40 * 255));
  t.equal(most, 4);
  checkRequests(t, server);
});

t.test('a reply that comes byte by byte', async (t) => {
  const server = await startServer(t, (connection, { count }) => {
    connection.pending.shift();
    void (async () => {
      for (const byte of [count, ...stream(count)]) {
        connection.send(Uint8Array.of(byte));
        await sleep(0);
      }
    })();
  });
  const { client, received, has } = startClient(t, server.address);
  client.want(40);
  t.ok(await has(40));
  t.same(received, stream(40));
});

t.test(
  'row 153: a reply of more than was asked for: nothing of it is used, the connection is closed',
  async (t) => {
    const server = await startServer(t, (connection, { count }) => {
      if (server.connections.length > 1) connection.answer();
      else connection.send(Buffer.concat([Buffer.of(count + 1), Buffer.alloc(count + 1, 0xee)]));
    });
    const { client, received, told, has } = startClient(t, server.address);
    client.want(100);
    t.ok(await has(100));
    t.same(received, stream(100));
    t.same(told, ['connected', 'no EGD server: it promised 101 bytes where 100 were asked for', 'connected']);
    t.ok(await eventually(() => server.connections[0]?.ended === true));
  },
);

t.test('row 155: fewer bytes than asked for are used, and the rest is asked for', async (t) => {
  let next = 0;
  const server = await startServer(t, (connection, { count }) =>
    connection.answer(Math.min(count, 1 + (next++ % 9))),
  );
  const { client, received, told, has } = startClient(t, server.address);
  client.want(500);
  t.ok(await has(500));
  t.same(received, stream(500));
  t.same(told, ['connected']);
  t.ok(server.requests.length >= 100);
});

t.test('row 156: N promised and fewer sent: the fragment is not used', async (t) => {
  const server = await startServer(t, (connection) => {
    if (server.connections.length > 3) connection.answer();
    if (server.connections.length > 3 || connection.requests.length > 1) return;
    connection.send(Uint8Array.of(100, ...Array.from({ length: 99 }, () => 0xee)));
    connection.end();
  });
  const { client, received, told, has } = startClient(t, server.address);
  client.want(1000);
  t.ok(await has(1000));
  t.same(received, stream(1000));
  t.equal(told.filter((text) => text.includes('closed the connection with 4 requests unanswered')).length, 3);
});

t.test('row 157: silence, before an answer and within one, ends the connection after its time', async (t) => {
  const server = await startServer(t, (connection) => {
    if (server.connections.length > 2) connection.answer();
    else if (server.connections.length === 2 && connection.requests.length === 1)
      connection.send(Uint8Array.of(255, 0xee, 0xee));
  });
  const { client, received, told, has } = startClient(t, server.address, { ...RETRY_AT_ONCE, silenceMs: 50 });
  client.want(1000);
  t.ok(await has(1000));
  t.same(received, stream(1000));
  t.same(told.slice(0, 5), [
    'connected',
    'no answer within 50 ms',
    'connected',
    'no answer within 50 ms',
    'connected',
  ]);
});

t.test('silence of a server that was asked nothing is no failure', async (t) => {
  const server = await startServer(t);
  const { client, told, has } = startClient(t, server.address, {
    ...RETRY_AT_ONCE,
    silenceMs: LOOK_ON_MS / 3,
  });
  client.want(10);
  t.ok(await has(10));
  await sleep(LOOK_ON_MS);
  t.same(told, ['connected']);
  client.want(10);
  t.ok(await has(20));
  t.equal(server.connections.length, 1);
});

t.test('row 159: of an endless stream no more is taken than was asked for', async (t) => {
  let sent = 0;
  const server = await startServer(t, (connection) => {
    if (connection.requests.length > 1) return;
    // 255, and 255 bytes of 255, for ever: for the time being every reply is a right one.
    const block = Buffer.alloc(64 * 1024, 255);
    for (let i = 0; i < 64; i++, sent += block.length) connection.send(block);
  });
  const { client, received, hasTold } = startClient(t, server.address, { firstRetryMs: 10_000 });
  client.want(255 * 8);
  t.ok(await hasTold(/no EGD server: it sent bytes that nobody asked for/));
  t.equal(received.length, 255 * 8);
  t.ok(await eventually(() => server.connections[0]?.ended === true));
  t.ok(sent > 1_000_000);
});

t.test('row 163, F27: a server that dies with requests pending is asked again when it is back', async (t) => {
  const first = await startServer(t, () => undefined);
  const { client, received, told, has, hasTold } = startClient(t, first.address);
  client.want(1000);
  t.ok(await eventually(() => first.connections[0]?.pending.length === 4));
  first.connections[0]?.answer();
  t.ok(await has(255));
  await first.kill();
  t.ok(await hasTold(/ENOENT/), 'its socket is gone');
  const second = await startServer(t, honest, first.address);
  t.ok(await has(1000));
  t.same(received, [...stream(255), ...stream(745)]);
  t.equal(
    second.requests.reduce((sum, { count }) => sum + count, 0),
    745,
  );
  t.match(told[1], /closed the connection with \d requests unanswered/);
});

t.test('F27: nonsense of every kind, then a server that is right', async (t) => {
  const nonsense = [
    'HTTP/1.1 400 Bad Request\r\n\r\n',
    '\xff',
    '\x00\x00\x00\x00\x00',
    'SSH-2.0-x\r\n',
    '\x02a',
    '',
  ];
  const server = await startServer(t, (connection) => {
    const text = nonsense[server.connections.length - 1];
    if (text === undefined) connection.answer();
    if (text === undefined || connection.requests.length > 1) return;
    connection.send(Buffer.from(text, 'latin1'));
    connection.end();
  });
  const { client, received, told, has } = startClient(t, server.address);
  client.want(10);
  t.ok(await has(10));
  t.equal(told.filter((text) => text === 'connected').length, nonsense.length + 1);
  t.same(received, stream(10), 'nothing of the nonsense');
  checkRequests(t, server);
});

t.test(
  'a reply of 0 bytes: told once, then asked by one request at a time, until there are some',
  async (t) => {
    let dry = true;
    const server = await startServer(t, (connection, { count }) => connection.answer(dry ? 0 : count));
    const timing = { ...RETRY_AT_ONCE, firstEmptyWaitMs: 5, longestEmptyWaitMs: 10 };
    const { client, received, told, has, hasTold } = startClient(t, server.address, timing);
    client.want(3000);
    t.ok(await hasTold(/empty/));
    t.ok(await eventually(() => server.requests.length >= 10));
    t.same(received, []);
    t.same(told, ['connected', 'empty']);
    t.equal(server.connections[0]?.pending.length, 0);
    dry = false;
    t.ok(await has(3000));
    t.same(received, stream(3000));
    dry = true;
    client.want(1);
    t.ok(await eventually(() => told.length === 3));
    t.same(told, ['connected', 'empty', 'empty'], 'told again when it is empty again');
  },
);

t.test('a server without bytes is not asked in a busy loop', async (t) => {
  const server = await startServer(t, (connection) => connection.answer(0));
  const { client, hasTold } = startClient(t, server.address, {
    firstEmptyWaitMs: 60_000,
    longestEmptyWaitMs: 120_000,
  });
  client.want(3000);
  t.ok(await hasTold(/empty/));
  client.want(3000);
  await sleep(LOOK_ON_MS);
  t.equal(server.requests.length, 4, 'the four that were in flight');
});

t.test('row 164: what is refused, missing or unknown is tried again, and told each time', async (t) => {
  const gone = await startServer(t, honest, { kind: 'tcp', host: '127.0.0.1', port: 0 });
  await gone.kill();
  const folder = temporaryFolder(t);
  for (const [address, reason] of [
    [gone.address, /^ECONNREFUSED$/],
    [{ kind: 'unix', path: join(folder, 'missing') }, /^ENOENT$/],
    [{ kind: 'unix', path: folder }, /^(ECONNREFUSED|ENOTSOCK|EACCES)$/],
    [{ kind: 'tcp', host: 'no-such-host.invalid', port: 708 }, /^(ENOTFOUND|EAI_AGAIN)$/],
  ] as const) {
    const { client, told } = startClient(t, address);
    t.ok(await eventually(() => told.length >= 2));
    for (const text of told) t.match(text, reason);
    client.close();
  }
  const back = await startServer(t, honest, gone.address);
  const { client, has } = startClient(t, back.address);
  client.want(10);
  t.ok(await has(10));
});

t.test(
  'a connection that ends while nothing is wanted is no failure; it is made again when something is',
  async (t) => {
    const server = await startServer(t, (connection) => {
      connection.answer();
      connection.end();
    });
    const { client, told, has } = startClient(t, server.address);
    client.want(20);
    t.ok(await has(20));
    t.ok(await eventually(() => server.connections[0]?.ended === true));
    t.same(told, ['connected']);
    client.want(20);
    t.ok(await has(40));
    t.same(told, ['connected', 'connected']);
  },
);

t.test('after close() nothing is told and nothing is sent, whenever it comes', async (t) => {
  const server = await startServer(t, () => undefined);
  for (const state of ['connecting', 'connected', 'asked', 'answered', 'retrying']) {
    const address = state === 'retrying' ? ({ kind: 'unix', path: '/nowhere' } as const) : server.address;
    const { client, received, told } = startClient(t, address, { firstRetryMs: 1, longestRetryMs: 2 });
    const before = server.connections.length;
    const connection = () => server.connections[before];
    if (state === 'retrying') t.ok(await eventually(() => told.length > 0));
    else if (state !== 'connecting')
      t.ok(await eventually(() => connection() !== undefined && told.length > 0));
    if (state === 'asked' || state === 'answered') {
      client.want(300);
      t.ok(await eventually(() => connection()?.pending.length === 2));
    }
    if (state === 'answered') connection()?.answer();
    const toldBefore = told.length;
    client.close();
    client.close();
    client.want(100);
    if (state !== 'retrying' && state !== 'connecting')
      t.ok(await eventually(() => connection()?.ended === true), state);
    await sleep(LOOK_ON_MS);
    t.same([received.length, told.length], [0, toldBefore], state);
  }
});

t.test('close() from within its events', async (t) => {
  const server = await startServer(t);
  for (const within of ['bytes', 'connected', 'failed', 'empty'] as const) {
    server.behaviour = (connection, { count }) => connection.answer(within === 'empty' ? 0 : count);
    const events: string[] = [];
    const note = (name: string) => () => {
      events.push(name);
      if (name === within) client.close();
    };
    const client: EgdClient = new EgdClient(
      within === 'failed' ? { kind: 'unix', path: '/nowhere' } : server.address,
      { bytes: note('bytes'), empty: note('empty'), connected: note('connected'), failed: note('failed') },
      RETRY_AT_ONCE,
    );
    client.want(1000);
    t.ok(await eventually(() => events.includes(within)));
    await sleep(LOOK_ON_MS);
    t.equal(events.filter((name) => name === within).length, 1, within);
  }
});
