// A route of the control socket: what it takes, what it gives, and what it does. The table is routes.ts; /openapi.json
// is made of the same fields.
import * as v from 'valibot';
import type { ServerResponse } from 'node:http';
import { Fault } from '../../protocol/fault.js';
import { firstIssue } from '../config/issue.js';
import type { Peer } from './peers.js';

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** A reply: JSON, another text, or a stream that the handler goes on with. */
export type Reply =
  | { readonly status: number; readonly json: unknown }
  | { readonly status: number; readonly text: string; readonly contentType: string }
  | { readonly stream: (response: ServerResponse) => void };

/** A request as a handler sees it. */
export interface RouteRequest<Body> {
  readonly peer: Peer;
  /** The part of the path that `{name}` stands for; empty without one. */
  readonly name: string;
  readonly body: Body;
}

export interface Route {
  readonly method: Method;
  /** `{name}` stands for one part. */
  readonly path: string;
  readonly summary: string;
  /** True when only those may who may change something. */
  readonly changes: boolean;
  readonly body: v.GenericSchema | undefined;
  /** Schemas of the JSON by status; a string is the content type of another text. */
  readonly replies: Readonly<Record<number, v.GenericSchema | string>>;
  readonly handle: (request: RouteRequest<unknown>) => Promise<Reply | Fault> | Reply | Fault;
}

/** A route without a body. */
export function reading(
  path: string,
  about: Pick<Route, 'summary' | 'replies'>,
  handle: (request: RouteRequest<unknown>) => Promise<Reply | Fault> | Reply | Fault,
): Route {
  return { method: 'GET', path, changes: false, body: undefined, handle, ...about };
}

/** A route that changes something, with a body that has been checked by the time `handle` sees it. */
export function changing<Body extends v.GenericSchema>(
  at: readonly [Method, string],
  about: Pick<Route, 'summary' | 'replies'>,
  body: Body,
  handle: (request: RouteRequest<v.InferOutput<Body>>) => Promise<Reply | Fault>,
): Route {
  const [method, path] = at;
  return {
    method,
    path,
    changes: true,
    body,
    ...about,
    handle: (request) => {
      const parsed = v.safeParse(body, request.body, { abortEarly: true });
      return parsed.success ? handle({ ...request, body: parsed.output }) : badField(parsed.issues[0]);
    },
  };
}

/** A fault that belongs to one field of a request. */
export class FieldFault extends Fault {
  readonly field: string;

  constructor(field: string, message: string) {
    super('request', 'bad_field', message);
    this.field = field;
  }
}

function badField(issue: v.BaseIssue<unknown>): FieldFault {
  const { path, message } = firstIssue(issue);
  const field = path.join('.');
  return new FieldFault(field, field === '' ? message : `${field}: ${message}`);
}
