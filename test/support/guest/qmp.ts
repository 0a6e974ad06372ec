// A small client of the QEMU machine protocol (QMP): one JSON object a line, a greeting, qmp_capabilities, then commands
// with ids and events in between. Source: QEMU docs/interop/qmp-spec.rst.
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { withDeadline } from './deadline.js';

const COMMAND_TIMEOUT_MS = 20_000;

type Json = Readonly<Record<string, unknown>>;

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: Error) => void;
}

/** A QMP connection in command mode. */
export class QmpClient {
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #events: Json[] = [];
  #eventArrived: () => void = () => undefined;
  #nextId = 1;
  #closed = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('close', () => this.#close());
    // readline passes the socket's errors on; what matters of them is the close that follows.
    const lines = createInterface({ input: socket });
    lines.on('error', () => undefined);
    lines.on('line', (line) => this.#receive(line));
  }

  /** Takes over a connected socket and leaves QMP's negotiation mode. */
  static async start(socket: Socket): Promise<QmpClient> {
    const client = new QmpClient(socket);
    await client.execute('qmp_capabilities');
    return client;
  }

  /** Gives what the command returns; rejects with QEMU's own words, or when the answer takes too long. */
  async execute(command: string, args: Json = {}, timeoutMs = COMMAND_TIMEOUT_MS): Promise<unknown> {
    if (this.#closed) throw new Error(`cannot ${command}: QEMU closed its QMP socket`);
    const id = this.#nextId++;
    const answer = new Promise<unknown>((resolve, reject) => this.#pending.set(id, { resolve, reject }));
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    try {
      return await withDeadline(answer, timeoutMs, () => `QMP ${command}: no answer within ${timeoutMs} ms`);
    } finally {
      this.#pending.delete(id);
    }
  }

  /** Forgets the events so far, so that `waitForEvent` sees only what a later command causes. */
  clearEvents(): void {
    this.#events.length = 0;
  }

  /** Gives the first event of that name since the start or since `clearEvents`. */
  waitForEvent(name: string, timeoutMs = COMMAND_TIMEOUT_MS): Promise<Json> {
    const found = new Promise<Json>((resolve) => {
      this.#eventArrived = () => {
        const event = this.#events.find((candidate) => candidate['event'] === name);
        if (event !== undefined) resolve(event);
      };
      this.#eventArrived();
    });
    return withDeadline(
      found,
      timeoutMs,
      () => `expected the QMP event ${name} within ${timeoutMs} ms, got none`,
    );
  }

  #receive(line: string): void {
    const message: unknown = JSON.parse(line);
    if (!isJson(message)) return;
    if ('event' in message) {
      this.#events.push(message);
      this.#eventArrived();
    }
    const pending = typeof message['id'] === 'number' ? this.#pending.get(message['id']) : undefined;
    if (pending === undefined) return;
    if ('error' in message) pending.reject(new Error(`QMP: ${JSON.stringify(message['error'])}`));
    else pending.resolve(message['return']);
  }

  #close(): void {
    this.#closed = true;
    for (const { reject } of this.#pending.values()) reject(new Error('QEMU closed its QMP socket'));
  }
}

function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null;
}
