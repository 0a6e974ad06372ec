// The stream of events, over a real connection: what is sent, and what happens to a watcher that does not read (row 173).
import { createServer } from 'node:http';
import { join } from 'node:path';
import t from 'tap';
import { streamEvents } from '../../../daemon/control/events.js';
import { RawClient } from '../../support/control-client.js';
import { eventually, temporaryFolder } from '../../support/rng-daemon.js';

t.test('records are sent as they come, escaped, until the watcher falls behind', async (t) => {
  const listeners = new Set<(record: string) => void>();
  const operations = {
    events: (listener: (record: string) => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const server = createServer((_request, response) => streamEvents(operations, response));
  t.teardown(() => server.close());
  const path = join(temporaryFolder(t), 'events.sock');
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const client = new RawClient(path);
  client.send('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  t.ok(await eventually(() => listeners.size === 1));
  for (const listener of listeners) listener('{"msg":"first\u009b"}\n');
  t.ok(await eventually(() => client.received.includes('first')));
  t.match(client.received, '{"msg":"first\\u009b"}\n');
  client.socket.pause();
  const record = `{"msg":"${'x'.repeat(1000)}"}\n`;
  let sent = 0;
  while (listeners.size > 0 && sent < 10_000) {
    for (const listener of listeners) listener(record);
    sent++;
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok(sent < 10_000, `closed after ${sent} records that were not read`);
  t.equal(listeners.size, 0, 'nobody listens for it any more');
  client.close();
});
