// The new process's part in a takeover (`--takeover`): it asks the old one, over its control socket, for all that it holds, and may still
// decline, in which case the old one serves on.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Fault } from '../../protocol/fault.js';
import { errnoName } from '../../shared-memory/errno.js';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import { poll, POLLIN } from '../../shared-memory/libc.js';
import { bindTo, FDS_TRUNCATED, MessageBuffer, openDatagramSocket } from '../../shared-memory/unix-socket.js';
import { DoneShape } from '../control/shapes.js';
import { ControlClient } from '../ctl/client.js';
import type { NamedFd } from './kept-names.js';
import { CONTROL, type End, LISTENER, parsePassing, STATE_LOCK } from './passing.js';

/** All of it comes within this time, or the old process serves on. Ours; the old one waits for 5 s. */
const PATIENCE_MS = 4000;
const MAX_MESSAGE_BYTES = 4096;

/** What the old process holds; owns the fds. */
export interface Received {
  readonly listeners: readonly Fd[];
  readonly control: Fd | undefined;
  readonly stateLock: Fd | undefined;
  /** As a service manager would pass it; see inherited.ts. */
  readonly kept: readonly NamedFd[];
  readonly frontEnds: number;
}

/** A takeover that is under way: guests wait until it is finished or declined. */
export class Takeover {
  readonly received: Received;
  private readonly old: ControlClient;

  private constructor(old: ControlClient, received: Received) {
    this.old = old;
    this.received = received;
  }

  /** Asks the daemon behind a control socket. A fault of scope `daemon` when it does not, or cannot, give all. */
  static async begin(controlPath: string): Promise<Takeover | Fault> {
    const old = new ControlClient(controlPath);
    const folder = privateFolder();
    if (folder instanceof Fault) return folder;
    const socket = asFd(openDatagramSocket());
    try {
      const address = join(folder, 'passing');
      const bound = bindTo(socket, address);
      if (bound < 0) return notBegun(`making a socket in ${folder} failed: ${errnoName(bound)}`);
      const begun = await old.json(DoneShape, ['POST', '/v1/handover'], { socket: address });
      if (begun instanceof Fault) return notBegun(begun.message);
      const received = receiveAll(socket);
      if (!(received instanceof Fault)) return new Takeover(old, received);
      await old.json(DoneShape, ['DELETE', '/v1/handover']);
      return received;
    } finally {
      closeFd(socket);
      rmSync(folder, { recursive: true });
    }
  }

  /** The old process ends; from here on all is this one's. A fault: it goes on itself. */
  async finish(): Promise<Fault | undefined> {
    const done = await this.old.json(DoneShape, ['POST', '/v1/handover/finish']);
    return done instanceof Fault ? failed(done.message) : undefined;
  }

  /** The old process serves on; gives the reason. */
  async decline(why: string): Promise<Fault> {
    await this.old.json(DoneShape, ['DELETE', '/v1/handover']);
    return failed(why);
  }
}

/** Where nobody else may send. */
function privateFolder(): string | Fault {
  try {
    return mkdtempSync(join(tmpdir(), 'vhost-rngd-takeover-'));
  } catch (error) {
    const { code = 'an error' } = error as NodeJS.ErrnoException;
    return notBegun(
      `making a folder in ${tmpdir()} failed: ${code}; set TMPDIR to one that this user may write`,
    );
  }
}

/** Waits for everything: nothing else can go on meanwhile. */
function receiveAll(socket: Fd): Received | Fault {
  const messages = new MessageBuffer();
  const buffer = new NativeMemory(MAX_MESSAGE_BYTES);
  const files: NamedFd[] = [];
  const deadlineMs = performance.now() + PATIENCE_MS;
  for (let leftMs = PATIENCE_MS; leftMs > 0; leftMs = deadlineMs - performance.now()) {
    poll(socket, POLLIN, leftMs);
    const fds: Fd[] = [];
    const got = messages.receive(socket, buffer, { offset: 0, length: MAX_MESSAGE_BYTES }, fds);
    if (got === FDS_TRUNCATED)
      return failed('it has more open files than this process may have: raise LimitNOFILE');
    if (got < 0) continue;
    const { name, end } = parsePassing(buffer.bytes.toString('utf8', 0, got));
    if (end !== undefined) return end.whole ? sorted(files, end) : failed('it could not send everything');
    for (const fd of fds) files.push({ name: name ?? '', fd });
  }
  return failed(`it has not sent everything within ${PATIENCE_MS / 1000} s`);
}

function sorted(files: readonly NamedFd[], { frontEnds }: End): Received {
  const named = (wanted: string): Fd[] => files.flatMap(({ name, fd }) => (name === wanted ? [fd] : []));
  const ours = [LISTENER, CONTROL, STATE_LOCK];
  return {
    listeners: named(LISTENER),
    control: named(CONTROL)[0],
    stateLock: named(STATE_LOCK)[0],
    kept: files.filter(({ name }) => !ours.includes(name)),
    frontEnds,
  };
}

function notBegun(why: string): Fault {
  return new Fault('daemon', 'takeover', `not taken over: ${why}`);
}

function failed(why: string): Fault {
  return new Fault('daemon', 'takeover', `not taken over, the old daemon serves on: ${why}`);
}
