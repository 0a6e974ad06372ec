// /openapi.json against the real daemon: it lists every route and no other, and each route answers in the shape that it promises.
//
// Leaves out: what is refused (control-socket), /v1/events, whose reply does not end (control-devices),
// /v1/handover, which another daemon asks for, with the shapes of these replies (takeover).
import { join } from 'node:path';
import t from 'tap';
import * as v from 'valibot';
import type { Operations } from '../../daemon/control/operations.js';
import { routesOf } from '../../daemon/control/routes.js';
import { ask } from '../support/control-client.js';
import { startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { VirtualMachine } from '../support/virtual-machine.js';

/** The table alone: no handler of it is called here. */
const ROUTES = routesOf({} as Operations);

await t.test('every route answers as it says', async (t) => {
  const folder = temporaryFolder(t);
  const control = join(folder, 'control.sock');
  const { path } = await startRngDaemon(t, { args: [`--control-socket=${control}`, '--max-bytes=100'] });
  const vm = VirtualMachine.start(path);
  vm.request();
  /** Bodies of those that take one, and the name that `{name}` stands for. */
  const bodies: Readonly<Record<string, object>> = {
    'POST /v1/devices': {
      name: 'late',
      socket: join(folder, 'late.sock'),
      weight: 3,
      sources: ['random'],
      mix: false,
    },
    'POST /v1/sources': { source: 'getrandom' },
    'PUT /v1/sources': { sources: ['random', 'getrandom'] },
    'PATCH /v1/devices/{name}': {
      limit: { maxBytes: 5, periodMs: 5, burstBytes: 1 },
      weight: 2,
      paused: true,
    },
  };
  const { json } = await ask(control, 'GET /openapi.json');
  const { paths } = json as {
    paths: Record<string, Record<string, { responses: object; requestBody?: object }>>;
  };
  const described = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  t.same(described.sort(), ROUTES.map(({ method, path }) => `${method} ${path}`).sort());
  // Removing comes last: the others need the device.
  const inOrder = [...ROUTES].sort((a, b) => Number(a.method === 'DELETE') - Number(b.method === 'DELETE'));
  for (const route of inOrder) {
    const title = `${route.method} ${route.path}`;
    const operation = paths[route.path]?.[route.method.toLowerCase()];
    t.same(
      Object.keys(operation?.responses ?? {}).sort(),
      [...Object.keys(route.replies), 'default'].sort(),
      title,
    );
    t.equal(operation?.requestBody !== undefined, route.body !== undefined, `${title}: a body`);
    if (route.path === '/v1/events' || route.path.startsWith('/v1/handover')) continue;
    const name =
      route.path === '/v1/sources/{name}' ? 'getrandom' : route.method === 'DELETE' ? 'late' : 'rng0';
    const answer = await ask(control, `${route.method} ${route.path.replace('{name}', name)}`, bodies[title]);
    const promised = route.replies[answer.status];
    t.ok(promised !== undefined, `${title}: ${answer.status} is promised`);
    if (promised === undefined || typeof promised === 'string') continue;
    const { issues } = v.safeParse(promised, answer.json);
    t.same(issues?.map((issue) => v.getDotPath(issue)) ?? [], [], `${title}: ${answer.text}`);
  }
  vm.close();
});

await t.test('the metrics have the forms that Prometheus asks for', async (t) => {
  const control = join(temporaryFolder(t), 'control.sock');
  const { path } = await startRngDaemon(t, { args: [`--control-socket=${control}`] });
  const vm = VirtualMachine.start(path);
  for (let i = 0; i < 1000; i++) vm.request();
  const { text, status } = await ask(control, 'GET /metrics');
  t.equal(status, 200);
  for (const line of text.split('\n').filter((line) => line !== ''))
    t.match(
      line,
      /^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? (\d|NaN)[0-9.e+-]*)$/,
      line,
    );
  for (const [, name = '', type] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm))
    t.equal(name.endsWith('_total'), type === 'counter', `${name} is a ${type ?? ''}`);
  t.match(text, /^vhost_rngd_device_requests_total\{device="rng0"\} 1000$/m);
  t.match(text, /^vhost_rngd_device_bytes_total\{device="rng0"\} 64000$/m);
  const buckets = [
    ...text.matchAll(/^vhost_rngd_request_latency_seconds_bucket\{device="rng0",le="\S+"\} (\d+)$/gm),
  ].map(([, count]) => Number(count));
  const [, total] = /^vhost_rngd_request_latency_seconds_count\{device="rng0"\} (\d+)$/m.exec(text) ?? [];
  t.ok(Number(total) > 0, 'requests were timed');
  t.equal(buckets.at(-1), Number(total), 'the last bucket holds all');
  t.same(
    buckets.toSorted((a, b) => a - b),
    buckets,
    'buckets grow',
  );
  vm.close();
});
