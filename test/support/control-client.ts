// A client of the control socket: whole requests, and raw bytes for what no client would send.
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { eventually } from './rng-daemon.js';

/** What a request was answered. */
export interface Answer {
  readonly status: number;
  readonly text: string;
  /** The parsed text; undefined when it is no JSON. */
  readonly json: unknown;
}

/** Sends one request and waits for the whole reply. */
export async function ask(
  socketPath: string,
  line: string,
  body?: string | Uint8Array | object,
): Promise<Answer> {
  const [method = 'GET', path = '/'] = line.split(' ');
  const bytes =
    body === undefined || typeof body === 'string' || body instanceof Uint8Array
      ? body
      : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, method, path }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(parts).toString('utf8');
        resolve({ status: response.statusCode ?? 0, text, json: parsed(text) });
      });
    });
    sent.on('error', reject);
    sent.end(bytes);
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A connection on which a test sends what it likes. */
export class RawClient {
  readonly socket: Socket;
  received = '';
  closed = false;

  constructor(socketPath: string) {
    this.socket = connect(socketPath);
    this.socket.on('data', (part: Buffer) => (this.received += part.toString('latin1')));
    this.socket.on('close', () => (this.closed = true));
    this.socket.on('error', () => undefined);
  }

  send(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  /** True once the daemon has closed the connection. */
  async waitForEnd(timeoutMs = 10_000): Promise<boolean> {
    return eventually(() => this.closed, timeoutMs);
  }

  close(): void {
    this.socket.destroy();
  }
}
