// /openapi.json: the control socket described from its own table of routes.
// Source: OpenAPI 3.1, whose schemas are JSON Schema.
import type * as v from 'valibot';
import { type JsonSchema, jsonSchemaOf } from '../config/json-schema.js';
import type { Route } from './route.js';
import { ErrorShape } from './shapes.js';

/** The document. */
export function openApi(routes: readonly Route[], version: string): JsonSchema {
  const paths: Record<string, Record<string, JsonSchema>> = {};
  for (const route of routes) {
    (paths[route.path] ??= {})[route.method.toLowerCase()] = operation(route);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'vhost-rngd',
      version,
      description:
        'HTTP/1.1 over the Unix socket of --control-socket; one request for each connection. Whoever may connect may ' +
        'read; changing is for root, the user of the daemon and the admins of its configuration.',
    },
    paths,
  };
}

function operation(route: Route): JsonSchema {
  const responses = Object.fromEntries(
    Object.entries(route.replies).map(([status, reply]) => [
      status,
      { description: status, ...content(reply) },
    ]),
  );
  return {
    summary: route.summary,
    ...(route.path.includes('{name}') && {
      parameters: [{ name: 'name', in: 'path', required: true, schema: { type: 'string' } }],
    }),
    ...(route.body && { requestBody: { required: true, ...content(route.body) } }),
    responses: { ...responses, default: { description: 'refused', ...content(ErrorShape) } },
  };
}

function content(reply: v.GenericSchema | string): JsonSchema {
  return typeof reply === 'string'
    ? { content: { [reply]: { schema: { type: 'string' } } } }
    : { content: { 'application/json': { schema: jsonSchemaOf(reply) } } };
}
