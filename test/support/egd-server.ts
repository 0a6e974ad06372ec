// An EGD server for tests: it notes every request and answers as the test says, truthfully or not. A real server answers
// in test/end-to-end/egd-server.test.ts.
import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import type { EgdAddress } from '../../daemon/entropy/egd-address.js';

/** Two bytes as they were read: what they should be is for the test to say. */
export interface EgdRequest {
  readonly command: number;
  readonly count: number;
}

/** What the server does with one request. */
export type EgdBehaviour = (connection: EgdConnection, request: EgdRequest) => void;

/** One client's connection, from the server's side. */
export class EgdConnection {
  readonly requests: EgdRequest[] = [];
  /** Requests that were neither answered nor refused yet. */
  pending: EgdRequest[] = [];
  /** True once the client has closed. */
  ended = false;
  private readonly socket: Socket;
  private readonly stream: ByteStream;
  private half: number | undefined;

  constructor(socket: Socket, stream: ByteStream, onRequest: EgdBehaviour) {
    this.socket = socket;
    this.stream = stream;
    socket.on('error', () => undefined);
    socket.on('close', () => (this.ended = true));
    socket.on('data', (data: Buffer) => {
      for (const byte of data) {
        if (this.half === undefined) {
          this.half = byte;
          continue;
        }
        const request = { command: this.half, count: byte };
        this.half = undefined;
        this.requests.push(request);
        this.pending.push(request);
        onRequest(this, request);
      }
    });
  }

  /** Answers the oldest pending request with `count` bytes of the stream, by default with all that it asks for. */
  answer(count?: number): void {
    const request = this.pending.shift();
    const given = count ?? request?.count ?? 0;
    this.send(Buffer.concat([Buffer.of(given), this.stream.next(given)]));
  }

  /** Sends bytes as they are. */
  send(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  /** Sends what was sent so far, then its end; reads nothing more. */
  end(): void {
    this.socket.end();
    this.socket.pause();
  }

  /** Ends it as a server that is killed does. */
  destroy(): void {
    this.socket.destroy();
  }
}

/** The bytes that one server gives in its life, counted through: a byte that is lost or comes twice shows. */
class ByteStream {
  private position = 0;

  next(count: number): Buffer {
    const start = this.position;
    this.position += count;
    return Buffer.from(Uint8Array.from({ length: count }, (_, i) => streamByte(start + i)));
  }
}

/** The byte at a place of every server's stream; never 0, and not periodic in 256. */
export function streamByte(position: number): number {
  return 1 + ((position * 7 + (position >> 8) * 13) % 251);
}

/** Answers everything at once, in full. */
export const honest: EgdBehaviour = (connection) => connection.answer();

/** The server; `behaviour` may be changed at any time. */
export class EgdServer {
  readonly address: EgdAddress;
  readonly connections: EgdConnection[] = [];
  behaviour: EgdBehaviour;
  private readonly server: Server;
  private readonly stream = new ByteStream();

  private constructor(server: Server, address: EgdAddress, behaviour: EgdBehaviour) {
    this.server = server;
    this.address = address;
    this.behaviour = behaviour;
    server.on('connection', (socket) => {
      const onRequest: EgdBehaviour = (connection, request) => this.behaviour(connection, request);
      this.connections.push(new EgdConnection(socket, this.stream, onRequest));
    });
  }

  /** Listens at `address`; port 0 is any that is free. */
  static async listen(address: EgdAddress, behaviour: EgdBehaviour = honest): Promise<EgdServer> {
    const server = createServer();
    if (address.kind === 'unix') server.listen(address.path);
    else server.listen(address.port, address.host);
    await new Promise<void>((resolve, reject) => server.once('listening', resolve).once('error', reject));
    const bound = server.address();
    const port = bound !== null && typeof bound === 'object' ? bound.port : 0;
    return new EgdServer(server, address.kind === 'unix' ? address : { ...address, port }, behaviour);
  }

  /** All requests on all connections. */
  get requests(): EgdRequest[] {
    return this.connections.flatMap((connection) => connection.requests);
  }

  /** Ends every connection and stops listening; its socket file goes too. */
  async kill(): Promise<void> {
    for (const connection of this.connections) connection.destroy();
    await new Promise((resolve) => this.server.close(resolve));
    if (this.address.kind === 'unix') rmSync(this.address.path, { force: true });
  }
}
