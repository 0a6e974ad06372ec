// The connections of the control socket: at most 16, each for one request, and none for longer than it takes.
//
// A new connection is always taken: when all places are in use, the oldest one of the process that has most of them goes.
// So a process that opens a thousand only ever closes its own, and a health check gets through.
import type { Server, Socket } from 'node:net';
import { type AccessRules, admit, type Peer } from './peers.js';

const MAX_CONNECTIONS = 16;
/** A request must be complete, and its reply be taken, within this time each. */
const PATIENCE_MS = 5000;

interface Held {
  readonly peer: Peer;
  timer: NodeJS.Timeout;
}

/** What was turned away since the start. */
export interface ConnectionCounts {
  /** Peers that may not read. */
  refused: number;
  /** Closed to make room. */
  displaced: number;
  /** Closed because a request did not become complete, or its reply was not read. */
  timedOut: number;
}

/** Admits connections, and ends those that overstay. */
export class Connections {
  readonly counts: ConnectionCounts = { refused: 0, displaced: 0, timedOut: 0 };
  private readonly rules: () => AccessRules;
  private readonly held = new Map<Socket, Held>();

  constructor(server: Server, rules: () => AccessRules) {
    this.rules = rules;
    server.prependListener('connection', (socket: Socket) => this.take(socket));
  }

  private take(socket: Socket): void {
    const peer = admit(socket, this.rules());
    if (peer === undefined) {
      this.counts.refused++;
      socket.destroy();
      return;
    }
    if (this.held.size >= MAX_CONNECTIONS) this.displaceOne();
    this.held.set(socket, { peer, timer: this.patience(socket) });
    socket.once('close', () => {
      clearTimeout(this.held.get(socket)?.timer);
      this.held.delete(socket);
    });
  }

  private patience(socket: Socket): NodeJS.Timeout {
    return setTimeout(() => {
      this.counts.timedOut++;
      socket.destroy();
    }, PATIENCE_MS);
  }

  private displaceOne(): void {
    const places = new Map<number, Socket[]>();
    for (const [socket, { peer }] of this.held) {
      places.set(peer.pid, [...(places.get(peer.pid) ?? []), socket]);
    }
    const [oldest] = [...places.values()].reduce((most, some) => (some.length > most.length ? some : most));
    if (oldest === undefined) return;
    this.counts.displaced++;
    clearTimeout(this.held.get(oldest)?.timer);
    this.held.delete(oldest);
    oldest.destroy();
  }

  /** Who is at the other end; undefined once the connection has gone. */
  peerOf(socket: Socket): Peer | undefined {
    return this.held.get(socket)?.peer;
  }

  /** The request is complete: from now on the time runs for the reply. */
  renew(socket: Socket): void {
    const held = this.held.get(socket);
    if (held === undefined) return;
    clearTimeout(held.timer);
    held.timer = this.patience(socket);
  }

  /** This connection stays until one of its ends closes it; its owner sees to it that it does not pile up. */
  keep(socket: Socket): void {
    clearTimeout(this.held.get(socket)?.timer);
  }

  closeAll(): void {
    for (const socket of this.held.keys()) socket.destroy();
  }
}
