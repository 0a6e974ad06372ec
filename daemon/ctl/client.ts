// The client's end of the control socket: one request, one connection, one reply; and the stream of events.
import { type ClientRequest, request, type IncomingMessage } from 'node:http';
import { readFileSync, statSync } from 'node:fs';
import { userInfo } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import * as v from 'valibot';
import { Fault } from '../../protocol/fault.js';
import type { Method } from '../control/route.js';
import { ErrorShape } from '../control/shapes.js';
import { serviceAt, socketUnitOf } from '../systemd/unit-names.js';

/** The daemon answers within 50 ms, a change within 2 s; a reload may wait for a source's driver. Ours. */
const REPLY_TIMEOUT_MS = 15_000;

/** A source that takes longer to pass its start-up test is worth telling. Ours. */
const SETTLE_TIMEOUT_MS = 5000;
const SETTLE_EVERY_MS = 50;

/** Names the control socket where no option does. */
export const CONTROL_SOCKET_VARIABLE = 'VHOST_RNGD_CONTROL_SOCKET';

/** What was answered. */
export interface Reply {
  readonly status: number;
  readonly text: string;
}

/** A reply that was understood. */
export interface Answer<T> {
  readonly value: T;
  /** As it came. */
  readonly text: string;
}

/** Asks one daemon. */
export class ControlClient {
  readonly socketPath: string;
  private readonly replyTimeoutMs: number;
  private readonly pending = new Set<ClientRequest>();

  constructor(socketPath: string, replyTimeoutMs = REPLY_TIMEOUT_MS) {
    this.socketPath = socketPath;
    this.replyTimeoutMs = replyTimeoutMs;
  }

  /** Gives up what is still asked, which would keep this process until it is answered. */
  close(): void {
    for (const sent of this.pending) sent.destroy();
  }

  /** The reply whatever its status; a fault when there is none. */
  async ask(method: Method, path: string, body?: object): Promise<Reply | Fault> {
    const bytes = body === undefined ? undefined : JSON.stringify(body);
    return new Promise((resolve) => {
      const sent = this.send(method, path, (response) => {
        const parts: Buffer[] = [];
        response.on('data', (part: Buffer) => parts.push(part));
        response.on('error', (error) => resolve(this.unreachable(error)));
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString('utf8') }),
        );
      });
      sent.on('error', (error) => resolve(this.unreachable(error)));
      sent.setTimeout(this.replyTimeoutMs, () =>
        sent.destroy(new Error(`none within ${this.replyTimeoutMs / 1000} s`)),
      );
      sent.end(bytes);
    });
  }

  /**
   * The JSON of a reply, checked to be of the shape that this route gives, and its text; a fault when there is none, or when the
   * daemon has refused. Whether health is `failing` is no refusal, though its status is 503.
   */
  async json<T extends v.GenericSchema>(
    shape: T,
    [method, path]: readonly [Method, string],
    body?: object,
  ): Promise<Answer<v.InferOutput<T>> | Fault> {
    const reply = await this.ask(method, path, body);
    if (reply instanceof Fault) return reply;
    const value = parsed(reply.text);
    const checked = v.safeParse(shape, value);
    if (checked.success) return { value: checked.output, text: reply.text };
    return refusal(value, reply.status);
  }

  /**
   * As {@link json} of a GET, but asked again, for 5 s at most, while `isEarly` says that the daemon has only just started: whoever
   * asks on a socket on which systemd listens may be who starts it.
   */
  async settled<T extends v.GenericSchema>(
    shape: T,
    path: string,
    isEarly: (value: v.InferOutput<T>) => boolean,
  ): Promise<Answer<v.InferOutput<T>> | Fault> {
    for (const endMs = performance.now() + SETTLE_TIMEOUT_MS; ;) {
      const answer = await this.json(shape, ['GET', path]);
      if (answer instanceof Fault || !isEarly(answer.value) || performance.now() > endMs) return answer;
      await wait(SETTLE_EVERY_MS);
    }
  }

  /** Gives each line of `path` to `onLine` until the daemon or `until` ends it; a fault when it was not begun. */
  async stream(path: string, onLine: (line: string) => void, until: AbortSignal): Promise<Fault | undefined> {
    return new Promise((resolve) => {
      const sent = this.send('GET', path, (response) => {
        const refused = response.statusCode !== 200;
        let rest = '';
        response.setEncoding('utf8');
        response.on('data', (part: string) => {
          const lines = (rest + part).split('\n');
          rest = refused ? rest + part : (lines.pop() ?? '');
          if (!refused) lines.forEach(onLine);
        });
        response.on('error', () => resolve(undefined));
        response.on('close', () =>
          resolve(refused ? refusal(parsed(rest), response.statusCode ?? 0) : undefined),
        );
      });
      sent.on('error', (error) => resolve(until.aborted ? undefined : this.unreachable(error)));
      until.addEventListener('abort', () => sent.destroy());
      sent.end();
    });
  }

  private send(method: Method, path: string, onReply: (response: IncomingMessage) => void): ClientRequest {
    const sent = request(
      { socketPath: this.socketPath, method, path, headers: { 'Content-Type': 'application/json' } },
      onReply,
    );
    this.pending.add(sent);
    return sent.once('close', () => this.pending.delete(sent));
  }

  private unreachable(error: NodeJS.ErrnoException): Fault {
    const { socketPath } = this;
    const service = serviceAt(socketPath);
    const start = service && `systemctl start ${socketUnitOf(service)}`;
    const log = service === undefined ? '' : `; journalctl -u ${service} may say why`;
    switch (error.code) {
      case 'ENOENT':
        return unreachable(
          `expected a control socket at ${socketPath}, got nothing there: ` +
            `${start ?? `start vhost-rngd with --control-socket=${socketPath}`}, or say where it listens with --control-socket or ${CONTROL_SOCKET_VARIABLE}`,
        );
      case 'ECONNREFUSED':
        return unreachable(
          `expected a daemon behind ${socketPath}, got a socket that nobody serves: ${start ?? 'start vhost-rngd'}${log}`,
        );
      case 'EACCES':
      case 'EPERM':
        return new Fault(
          'request',
          'control_permission',
          `expected a control socket that ${userName()} may open, got ${socketPath}: be in ${groupOf(socketPath)}, ` +
            'or run this as root',
        );
      default:
        return unreachable(`expected an answer on ${socketPath}, got ${error.code ?? error.message}${log}`);
    }
  }
}

function unreachable(message: string): Fault {
  return new Fault('request', 'control_unreachable', message);
}

/** The group of a file by its name. */
function groupOf(path: string): string {
  try {
    const { gid } = statSync(path);
    const line = readFileSync('/etc/group', 'utf8')
      .split('\n')
      .find((group) => group.split(':')[2] === String(gid));
    return `its group (${line?.split(':')[0] ?? gid})`;
  } catch {
    return 'the group of that file';
  }
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return `uid ${process.getuid?.() ?? ''}`;
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function refusal(value: unknown, status: number): Fault {
  const refused = v.safeParse(ErrorShape, value);
  if (refused.success) return new Fault('request', refused.output.error.code, refused.output.error.message);
  return unreachable(
    `expected a reply of this version's daemon, got another one (HTTP status ${status}): restart the daemon, or use its own vhost-rngctl`,
  );
}
