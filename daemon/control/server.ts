// The control socket: HTTP/1.1 over a Unix socket, one request for each connection, on the main thread.
//
// Nothing here asks the data plane: what is read lies in shared memory. A peer can spend its own requests and no more: body,
// headers, connections and time are bounded.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { Fault } from '../../protocol/fault.js';
import type { Log } from '../rng-device.js';
import { Connections, type ConnectionCounts } from './connections.js';
import { escapeRaw, parseJson } from './json.js';
import type { Operations } from './operations.js';
import type { AccessRules, Peer } from './peers.js';
import { FieldFault, type Reply, type Route } from './route.js';
import { routesOf } from './routes.js';

const MAX_BODY_BYTES = 65_536;
const MAX_HEADER_BYTES = 8192;
/** Connections that wait to be accepted; node's client takes a full backlog for an error. */
const BACKLOG = 128;

/** Statuses of refusals; what is not listed is the request's fault. */
const STATUSES: Readonly<Record<string, number>> = {
  not_allowed: 403,
  unknown_route: 404,
  unknown_device: 404,
  unknown_source: 404,
  method: 405,
  device_exists: 409,
  device_activated: 409,
  source_exists: 409,
  source_in_use: 409,
  last_source: 409,
  reload_busy: 409,
  no_handover: 409,
  handover_by_manager: 409,
  body_too_large: 413,
  internal: 500,
  data_plane_silent: 503,
};
const BAD_REQUEST = 400;

/** The running control server. */
export class ControlServer {
  private readonly server: Server;
  private readonly routes: readonly Route[];
  private readonly connections: Connections;
  private readonly log: Log;

  /** Serves on a socket that listens already. `rules` is asked at each connection. */
  constructor(operations: Operations, listenerFd: number, options: { rules: () => AccessRules; log: Log }) {
    this.log = options.log;
    this.routes = routesOf(operations);
    this.server = createServer({ maxHeaderSize: MAX_HEADER_BYTES, keepAlive: false });
    this.connections = new Connections(this.server, options.rules);
    this.server.on('request', (request, response) => void this.answer(request, response));
    this.server.on('clientError', (_error, socket) => {
      if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
      else socket.destroy();
    });
    this.server.on('error', (error) =>
      this.log('error', 'control_failed', `the control socket failed: ${error.message}`),
    );
    this.server.listen({ fd: listenerFd, backlog: BACKLOG });
  }

  get counts(): Readonly<ConnectionCounts> {
    return this.connections.counts;
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const peer = this.connections.peerOf(request.socket);
    // Gone, or a second request on the same connection.
    if (peer === undefined || response.req !== request) return;
    response.shouldKeepAlive = false;
    // A peer that has gone is no error.
    response.on('error', () => undefined);
    try {
      this.send(response, await this.replyTo(request, peer));
    } catch (error) {
      if (response.destroyed || request.destroyed) return;
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      this.log('error', 'internal', `a bug in the control socket, please report it: ${text}`);
      this.send(response, new Fault('request', 'internal', 'a bug in vhost-rngd: its log has more'));
    }
  }

  private async replyTo(request: IncomingMessage, peer: Peer): Promise<Reply | Fault> {
    const found = this.find(request.method ?? '', request.url ?? '');
    if (found instanceof Fault) return found;
    const body = await readBody(request);
    if (body instanceof Fault) return body;
    this.connections.renew(request.socket);
    const { route, name } = found;
    if (route.changes && !peer.mayChange) {
      return new Fault(
        'request',
        'not_allowed',
        `expected root, the user of the daemon or one of its admins, got uid ${peer.uid}: see control.admins`,
      );
    }
    const value = body.length === 0 ? undefined : parseJson(body);
    if (value instanceof Fault) return value;
    if (value !== undefined && route.body === undefined) {
      return new Fault('request', 'bad_json', 'expected no body with this request, got one');
    }
    return route.handle({ peer, name, body: value });
  }

  private find(method: string, url: string): { readonly route: Route; readonly name: string } | Fault {
    const [path = ''] = url.split('?');
    const here = this.routes.flatMap((route) => {
      const name = match(route.path, path);
      return name === undefined ? [] : [{ route, name }];
    });
    const found = here.find(({ route }) => route.method === method);
    if (found !== undefined) return found;
    return here.length === 0
      ? new Fault('request', 'unknown_route', `expected a path of /openapi.json, got ${path}`)
      : new Fault(
          'request',
          'method',
          `expected ${here.map(({ route }) => route.method).join(' or ')} with ${path}, got ${method}`,
        );
  }

  private send(response: ServerResponse, reply: Reply | Fault): void {
    if (response.destroyed) return;
    if (reply instanceof Fault) {
      const { code, message } = reply;
      const field = reply instanceof FieldFault ? { field: reply.field } : {};
      this.send(response, {
        status: STATUSES[code] ?? BAD_REQUEST,
        json: { error: { code, message, ...field } },
      });
      return;
    }
    if ('stream' in reply) {
      this.connections.keep(response.req.socket);
      reply.stream(response);
      return;
    }
    const [type, text] =
      'json' in reply ? ['application/json', toJson(reply.json)] : [reply.contentType, reply.text];
    response.writeHead(reply.status, {
      'Content-Type': type,
      'Content-Length': Buffer.byteLength(text),
      'Cache-Control': 'no-store',
      Connection: 'close',
    });
    response.end(text);
  }

  /** Ends all connections; the listening socket is closed. */
  close(): void {
    this.server.close();
    // What was just written, that the daemon stops, goes out first.
    setImmediate(() => this.connections.closeAll());
  }
}

/** JSON without a byte that a terminal would act on, and a new line behind it. */
function toJson(value: unknown): string {
  return `${escapeRaw(JSON.stringify(value))}\n`;
}

/** What `{name}` stands for in `path`; empty for a route without it; undefined when the path is another one. */
function match(route: string, path: string): string | undefined {
  const at = route.indexOf('{name}');
  if (at < 0) return route === path ? '' : undefined;
  const part = path.slice(at);
  if (!path.startsWith(route.slice(0, at)) || part === '' || part.includes('/')) return undefined;
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}

async function readBody(request: IncomingMessage): Promise<Buffer | Fault> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > MAX_BODY_BYTES) {
      return new Fault('request', 'body_too_large', `expected at most ${MAX_BODY_BYTES} bytes, got more`);
    }
    parts.push(part);
  }
  return Buffer.concat(parts);
}
