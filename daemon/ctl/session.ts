// One run of vhost-rngctl: whom it asks, how it answers, and what every command is written against.
import type { GenericSchema, InferOutput } from 'valibot';
import type { Fault } from '../../protocol/fault.js';
import type { Method } from '../control/route.js';
import type { ControlClient } from './client.js';
import { ExitStatus } from './exit-status.js';
import type { Output } from './output.js';

/** What a command is given. */
export interface Session {
  readonly client: ControlClient;
  /** Give the daemon's JSON instead of text. */
  readonly json: boolean;
  readonly output: Output;
  /** Aborted by the user's Ctrl-C or SIGTERM. */
  readonly until: AbortSignal;
}

/** How a command has ended. */
export type Outcome = ExitStatus | Fault;

/** Asks, and answers with the reply as JSON or as `text` makes it. */
export async function show<T extends GenericSchema>(
  { client, json, output }: Session,
  shape: T,
  at: readonly [Method, string, (object | undefined)?],
  text: (value: InferOutput<T>) => string,
): Promise<Outcome> {
  const [method, path, body] = at;
  const answer = await client.json(shape, [method, path], ...(body === undefined ? [] : [body]));
  if (answer instanceof Error) return answer;
  output.out(json ? `${answer.text.trimEnd()}\n` : text(answer.value));
  return ExitStatus.Ok;
}
