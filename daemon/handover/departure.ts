// The old process's part in a takeover (`--takeover`): it stops serving, passes all that it holds to the new process, and ends once that one
// has it. Where that does not come to pass, it serves on: a request that a guest has made meanwhile has only waited.
import { Fault } from '../../protocol/fault.js';
import { closeFd } from '../../shared-memory/fd.js';
import type { Peer } from '../control/peers.js';
import type { DataPlane } from '../data-plane.js';
import type { Log } from '../rng-device.js';
import type { NamedFd } from './kept-names.js';
import { NotifyQueue } from '../systemd/notify-queue.js';
import { NotifySocket } from '../systemd/notify-socket.js';
import { endText } from './passing.js';

/** Guests wait no longer for a new process that does not come. Ours. */
const PATIENCE_MS = 5000;
const ROOT = 0;

/** What departs. */
export interface Departing {
  /** Stops serving and sends all front-ends; see data-plane.ts. */
  readonly plane: Pick<DataPlane, 'freeze' | 'thaw'>;
  /** True where a service manager keeps what the next process needs. */
  readonly keptByManager: boolean;
  /** Runs work while nothing else is changed. */
  readonly inTurn: (work: () => Promise<void>) => Promise<void>;
  /** What else the next process needs; borrowed. */
  readonly fds: () => readonly NamedFd[];
  /** How many front-ends go on. */
  readonly frontEnds: () => number;
  /** The next process has all: this one ends, and leaves everything as it is. */
  readonly leave: () => void;
  readonly log: Log;
}

/** One departure at a time. */
export class Departure {
  private readonly of: Departing;
  /** Ends the one that is under way. */
  private giveUp: ((why: string) => void) | undefined;
  private sent = false;
  /** True once the next process has all. */
  hasLeft = false;

  constructor(of: Departing) {
    this.of = of;
  }

  /** Passes everything to `address`; answers as soon as it is known that this can be tried. */
  async begin(peer: Peer, address: string): Promise<Fault | undefined> {
    const refused = notAllowed(peer) ?? (this.of.keptByManager ? keptByManager() : undefined);
    if (refused) return refused;
    const { uid, pid } = peer;
    this.of.log('info', 'handover', `asked to hand over (by uid ${uid}, pid ${pid})`, { uid, pid });
    return new Promise((answer) => void this.of.inTurn(() => this.run(address, answer)));
  }

  /** Resolves when this process serves again. */
  private async run(address: string, answer: (refused: Fault | undefined) => void): Promise<void> {
    const socket = NotifySocket.open(address);
    if (socket === undefined) {
      const expected = `expected a datagram socket at ${address} that this process can reach, got none`;
      answer(new Fault('request', 'handover_socket', `${expected}: start the new daemon as the same user`));
      return;
    }
    this.sent = false;
    const given = new Promise<string>((resolve) => (this.giveUp = resolve));
    const patience = setTimeout(
      () => this.giveUp?.(`nobody took over within ${PATIENCE_MS / 1000} s`),
      PATIENCE_MS,
    );
    answer(undefined);
    // Not waited for: a data plane that does not answer must not keep this process from going on.
    const { giveUp } = this;
    void this.pass(address, socket).then((sent) => {
      if (this.giveUp !== giveUp) return;
      this.sent = sent;
      if (!sent) giveUp?.('not everything could be sent');
    });
    const why = await given;
    clearTimeout(patience);
    this.giveUp = undefined;
    this.of.plane.thaw();
    this.of.log('warn', 'handover_failed', `no new process has taken over, this one goes on: ${why}`);
  }

  /** True when the other process has been sent everything. */
  private async pass(address: string, socket: NotifySocket): Promise<boolean> {
    const frozen = await this.of.plane.freeze(address);
    const queue = new NotifyQueue(socket, {
      waits: () => undefined,
      lost: () => undefined,
      letGo: closeFd,
    });
    for (const { name, fd } of this.of.fds()) queue.keep(name, fd);
    queue.tell(endText({ whole: frozen, frontEnds: this.of.frontEnds() }));
    const sent = queue.drain() && frozen;
    queue.close();
    return sent;
  }

  /** The next process has all, and this one will not touch it again. */
  finish(peer: Peer): Fault | undefined {
    const refused = notAllowed(peer);
    if (refused) return refused;
    if (!this.sent || this.giveUp === undefined) return noHandover();
    this.hasLeft = true;
    this.giveUp = undefined;
    this.of.leave();
    return undefined;
  }

  /** The next process does without. */
  cancel(peer: Peer): Fault | undefined {
    const refused = notAllowed(peer);
    if (refused) return refused;
    if (this.giveUp === undefined) return noHandover();
    this.giveUp('the new one has given up');
    return undefined;
  }
}

/** What is given is the memory of all guests: for root, and for whoever could read it in this process. */
function notAllowed({ uid }: Peer): Fault | undefined {
  if (uid === ROOT || uid === process.getuid?.()) return undefined;
  const message = `expected root or the user of the daemon, got uid ${uid}: a takeover is given the memory of all guests`;
  return new Fault('request', 'not_allowed', message);
}

function keptByManager(): Fault {
  const message = 'expected a daemon without a service manager, got one whose guests are kept there';
  return new Fault('request', 'handover_by_manager', `${message}: systemctl restart`);
}

function noHandover(): Fault {
  const message = 'expected a handover that is under way, got none: ask for one, and be done within 5 s';
  return new Fault('request', 'no_handover', message);
}
