// The routes of the control socket.
import * as v from 'valibot';
import { Fault } from '../../protocol/fault.js';
import { streamEvents } from './events.js';
import { openApi } from './openapi.js';
import type { Operations } from './operations.js';
import type { Peer } from './peers.js';
import { changing, reading, type Reply, type Route } from './route.js';
import {
  DevicePatchShape,
  DeviceShape,
  DevicesShape,
  DoneShape,
  EnabledShape,
  EnableShape,
  HandoverShape,
  HealthShape,
  NewDeviceShape,
  NewSourceShape,
  ReadyShape,
  ReloadShape,
  SourceOrderShape,
  SourceShape,
  SourcesShape,
  StatusShape,
} from './shapes.js';

const OK = 200;
const CREATED = 201;
const UNAVAILABLE = 503;
const JSON_TYPE = 'application/json';

function whoIs({ uid, pid }: Peer): string {
  return `uid ${uid}, pid ${pid}`;
}

function json(body: unknown, status = OK): Reply {
  return { status, json: body };
}

/** The JSON of a result, unless it is a fault. */
function result(found: unknown, status = OK): Reply | Fault {
  return found instanceof Fault ? found : json(found, status);
}

/** The whole table. */
export function routesOf(operations: Operations): readonly Route[] {
  const routes: readonly Route[] = [
    ...probes(operations),
    ...looks(operations),
    ...changes(operations),
    ...handover(operations),
  ];
  const described: Route = reading(
    '/openapi.json',
    { summary: 'This description', replies: { [OK]: JSON_TYPE } },
    () => json(openApi([...routes, described], operations.version)),
  );
  return [...routes, described];
}

function probes(operations: Operations): readonly Route[] {
  return [
    reading(
      '/healthz',
      {
        summary: 'Whether guests are served, and what is wrong',
        replies: { [OK]: HealthShape, [UNAVAILABLE]: HealthShape },
      },
      () => {
        const health = operations.health();
        return json(health, health.status === 'failing' ? UNAVAILABLE : OK);
      },
    ),
    reading(
      '/readyz',
      {
        summary: 'Whether every listening socket accepts',
        replies: { [OK]: ReadyShape, [UNAVAILABLE]: ReadyShape },
      },
      () => json({ ready: operations.isReady }, operations.isReady ? OK : UNAVAILABLE),
    ),
    reading(
      '/metrics',
      { summary: 'Counters for Prometheus', replies: { [OK]: 'text/plain' } },
      async () => ({ status: OK, ...(await operations.metrics()) }),
    ),
  ];
}

function looks(operations: Operations): readonly Route[] {
  return [
    reading('/v1/status', { summary: 'Everything at a glance', replies: { [OK]: StatusShape } }, () =>
      json(operations.status()),
    ),
    reading('/v1/devices', { summary: 'All devices', replies: { [OK]: DevicesShape } }, () =>
      json({ devices: operations.devices() }),
    ),
    reading('/v1/devices/{name}', { summary: 'One device', replies: { [OK]: DeviceShape } }, ({ name }) =>
      result(operations.device(name)),
    ),
    reading(
      '/v1/events',
      {
        summary: 'What happens from now on: the records of the log, a line of JSON each, until you hang up',
        replies: { [OK]: 'application/x-ndjson' },
      },
      () => ({ stream: (response) => streamEvents(operations, response) }),
    ),
    reading(
      '/v1/sources',
      { summary: 'Sources of entropy in order of preference', replies: { [OK]: SourcesShape } },
      () => json({ sources: operations.sources() }),
    ),
  ];
}

function changes(operations: Operations): readonly Route[] {
  return [
    changing(
      ['POST', '/v1/devices'],
      { summary: 'Add a device', replies: { [CREATED]: DeviceShape } },
      NewDeviceShape,
      async ({ peer, body }) => result(await operations.addDevice(peer, body), CREATED),
    ),
    changing(
      ['PATCH', '/v1/devices/{name}'],
      { summary: 'Change a device while its guest runs', replies: { [OK]: DeviceShape } },
      DevicePatchShape,
      async ({ peer, name, body }) => result(await operations.changeDevice(peer, name, body)),
    ),
    changing(
      ['DELETE', '/v1/devices/{name}'],
      { summary: 'Remove a device; its front-end is disconnected', replies: { [OK]: DoneShape } },
      v.optional(DoneShape),
      async ({ peer, name }) => result((await operations.removeDevice(peer, name)) ?? {}),
    ),
    changing(
      ['POST', '/v1/sources'],
      { summary: 'Draw from a source more', replies: { [CREATED]: SourceShape } },
      NewSourceShape,
      async ({ peer, body }) => result(await operations.addSource(peer, body), CREATED),
    ),
    changing(
      ['PUT', '/v1/sources'],
      {
        summary: 'Draw from these sources, in this order; devices with sources of their own stay with them',
        replies: { [OK]: SourcesShape },
      },
      SourceOrderShape,
      async ({ peer, body }) => {
        const sources = await operations.orderSources(peer, body.sources);
        return sources instanceof Fault ? sources : json({ sources });
      },
    ),
    changing(
      ['DELETE', '/v1/sources/{name}'],
      { summary: 'Draw from a source no more', replies: { [OK]: DoneShape } },
      v.optional(DoneShape),
      async ({ peer, name }) => result((await operations.removeSource(peer, name)) ?? {}),
    ),
    changing(
      ['POST', '/v1/sources/enable'],
      {
        summary: 'Try sources that have failed again, also those that have failed for good',
        replies: { [OK]: EnabledShape },
      },
      EnableShape,
      ({ peer, body }) => {
        const enabled = operations.enableSources(whoIs(peer), body?.source);
        return Promise.resolve(enabled instanceof Fault ? enabled : json({ enabled }));
      },
    ),
    changing(
      ['POST', '/v1/reload'],
      { summary: 'Read the configuration file again', replies: { [OK]: ReloadShape } },
      v.optional(DoneShape),
      async ({ peer }) => result(await operations.reload(whoIs(peer))),
    ),
  ];
}

/** For `vhost-rngd --takeover`. */
function handover({ departure }: Operations): readonly Route[] {
  return [
    changing(
      ['POST', '/v1/handover'],
      {
        summary: 'Pass everything to a new daemon, which has 5 s to take over; guests wait meanwhile',
        replies: { [OK]: DoneShape },
      },
      HandoverShape,
      async ({ peer, body }) => result((await departure.begin(peer, body.socket)) ?? {}),
    ),
    changing(
      ['POST', '/v1/handover/finish'],
      {
        summary: 'The new daemon has everything: end, and leave the guests to it',
        replies: { [OK]: DoneShape },
      },
      v.optional(DoneShape),
      ({ peer }) => Promise.resolve(result(departure.finish(peer) ?? {})),
    ),
    changing(
      ['DELETE', '/v1/handover'],
      { summary: 'The new daemon has given up: serve on', replies: { [OK]: DoneShape } },
      v.optional(DoneShape),
      ({ peer }) => Promise.resolve(result(departure.cancel(peer) ?? {})),
    ),
  ];
}
