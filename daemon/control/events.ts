// /v1/events: the records of the log as they are made, for whoever watches.
//
// A watcher that does not read is closed: what waits for it is bounded, and nobody else waits.
import type { ServerResponse } from 'node:http';
import { escapeRaw } from './json.js';
import type { Operations } from './operations.js';

/** Some 300 records. Ours. */
const MAX_WAITING_BYTES = 65_536;

/** Sends every record from now on, until the peer hangs up or falls behind. */
export function streamEvents(operations: Pick<Operations, 'events'>, response: ServerResponse): void {
  response.writeHead(200, {
    'Content-Type': 'application/x-ndjson',
    'Cache-Control': 'no-store',
    Connection: 'close',
  });
  response.flushHeaders();
  const end = operations.events((record) => {
    if (response.destroyed) return;
    response.write(escapeRaw(record));
    if (response.writableLength > MAX_WAITING_BYTES) response.destroy();
  });
  response.once('close', end);
}
