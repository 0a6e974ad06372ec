// The stand of the conformance tests: a daemon with many devices, one of which serves a bystander all the time.
//
// Around the work of each row it checks the promises that hold for every bad input: the daemon lives and serves the
// bystander, descriptors and mappings of the daemon are back to what they were, and the log is not filled.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Frontend } from '../support/frontend.js';
import { waitUntil } from '../support/guest/deadline.js';
import { type Daemon, startDaemon } from '../support/guest/daemon.js';
import { openFiles } from '../support/guest/proc-files.js';
import { SyntheticGuest } from './synthetic-guest.js';

/** Generous, because the machine is shared: the promise is a second. */
const SETTLE_TIMEOUT_MS = 5000;
/** The daemon's own bound for lines of one kind of one device. */
const LINES_PER_DEVICE = 20;

/** What the stand needs of a tap test. */
interface Checks {
  ok(value: unknown, title: string): boolean;
  strictSame(found: unknown, wanted: unknown, title: string): boolean;
}

/** What a daemon holds for its peers. */
export interface Footprint {
  /** Targets of its open descriptors, sorted. */
  readonly files: readonly string[];
  /** Mappings of guest memory. */
  readonly mappings: number;
}

/** What the process `pid` holds now. */
export function footprintOf(pid: number): Footprint {
  const maps = readFileSync(`/proc/${pid}/maps`, 'utf8');
  const mappings = maps.split('\n').filter((line) => line.includes('/memfd:rngd')).length;
  return { files: openFiles(pid), mappings };
}

/** One device of the daemon under test, for one row. */
export class Device {
  readonly name: string;
  readonly path: string;
  connections = 0;
  private readonly frontends: Frontend[] = [];

  constructor(folder: string, name: string) {
    this.name = name;
    this.path = join(folder, `${name}.sock`);
  }

  /** Connects; the stand closes what is left open. */
  connect(): Frontend {
    const frontend = Frontend.connect(this.path);
    this.connections++;
    this.frontends.push(frontend);
    return frontend;
  }

  closeFrontends(): void {
    for (const frontend of this.frontends) frontend.close();
  }
}

/** A daemon under test. */
export class Stand {
  readonly daemon: Daemon;
  private readonly folder: string;
  private readonly devices: Device[];
  private readonly bystander = new SyntheticGuest();
  private readonly bystanderFrontend: Frontend;

  private constructor(daemon: Daemon, folder: string, devices: Device[]) {
    this.daemon = daemon;
    this.folder = folder;
    this.devices = devices;
    this.bystanderFrontend = this.nextDevice().connect();
    this.bystanderFrontend.setUp(this.bystander.ram, this.bystander.ring);
  }

  /** Starts a daemon with `devices` devices for rows, and one for the bystander. */
  static async start(options: {
    readonly devices: number;
    readonly args?: readonly string[];
  }): Promise<Stand> {
    const folder = mkdtempSync(join(tmpdir(), 'vhost-rngd-conformance-'));
    const devices = Array.from({ length: options.devices + 1 }, (_, i) => new Device(folder, `rng${i}x`));
    const paths = devices.map(({ path }) => `--socket-path=${path}`);
    const daemon = await startDaemon([...paths, ...(options.args ?? [])]);
    const stand = new Stand(daemon, folder, devices);
    await stand.steadyFootprint(stand.bystanderFrontend);
    return stand;
  }

  nextDevice(): Device {
    const device = this.devices.shift();
    if (device === undefined) throw new Error('the stand was started with too few devices');
    return device;
  }

  footprint(): Footprint {
    return footprintOf(this.daemon.pid);
  }

  /** What the daemon holds once it is done with all that `frontend` has sent, and with letting go of it. */
  async steadyFootprint(frontend: Frontend): Promise<Footprint> {
    if (!frontend.answers()) throw new Error('the connection was closed');
    let last = this.footprint();
    let looks = 0;
    await waitUntil(
      () => {
        const now = this.footprint();
        looks = JSON.stringify(now) === JSON.stringify(last) ? looks + 1 : 0;
        last = now;
        return looks > 1;
      },
      SETTLE_TIMEOUT_MS,
      () => 'expected descriptors to settle, they go on changing',
    );
    return last;
  }

  /** Waits until the daemon is done with all that `frontend` has sent and holds no more than `held`. */
  async holdsNoMoreThan(held: Footprint, frontend: Frontend): Promise<void> {
    if (!frontend.answers()) throw new Error('the connection was closed');
    const count = (files: readonly string[], target: string): number =>
      files.filter((file) => file === target).length;
    const isWithin = ({ files, mappings }: Footprint): boolean =>
      mappings <= held.mappings && files.every((file) => count(files, file) <= count(held.files, file));
    await waitUntil(
      () => isWithin(this.footprint()),
      SETTLE_TIMEOUT_MS,
      () => `expected at most ${JSON.stringify(held)}, got ${JSON.stringify(this.footprint())}`,
    );
  }

  /** Undefined when the bystander is served, otherwise what is wrong. Throws when it gets no answer at all. */
  serveBystander(): string | undefined {
    return this.bystander.serveOnce(this.bystanderFrontend);
  }

  /** Codes of the log lines of a device so far, in order. */
  codes(device: Device): string[] {
    const lines = this.daemon.log.split('\n').filter((line) => line.includes(` ${device.name}: `));
    return lines.map((line) => /\[(\w+)\]( \(\d+ more like this before\))?$/.exec(line)?.[1] ?? line);
  }

  /** Waits until the daemon holds what it held `before`, no more and no less. */
  async settled(before: Footprint): Promise<void> {
    const same = (): boolean => JSON.stringify(this.footprint()) === JSON.stringify(before);
    await waitUntil(same, SETTLE_TIMEOUT_MS, () => {
      return `expected ${JSON.stringify(before)}, got ${JSON.stringify(this.footprint())}`;
    });
  }

  /**
   * Runs a row's work on a device of its own, then checks the four promises. Gives the codes that were logged for
   * it, without those of coming and going.
   */
  async checked(t: Checks, work: (device: Device) => void | Promise<void>): Promise<string[]> {
    const device = this.nextDevice();
    const before = this.footprint();
    try {
      await work(device);
    } finally {
      device.closeFrontends();
    }
    await this.settled(before);
    const gone = Math.min(device.connections, LINES_PER_DEVICE);
    const logged = (code: string): number => this.codes(device).filter((other) => other === code).length;
    await waitUntil(
      () => logged('disconnected') >= gone,
      SETTLE_TIMEOUT_MS,
      () => `expected ${gone} connections to end, got ${this.daemon.log}`,
    );
    t.strictSame(this.serveBystander(), undefined, 'the bystander is served');
    t.ok(this.daemon.isRunning, 'the daemon lives');
    const codes = this.codes(device).filter(
      (code) => !['listening', 'connected', 'disconnected'].includes(code),
    );
    const most = Math.max(0, ...[...new Set(codes)].map(logged));
    t.ok(most <= gone, `at most one log line per kind and connection: ${codes.join()}`);
    return codes;
  }

  async stop(): Promise<void> {
    this.bystanderFrontend.close();
    this.bystander.close();
    await this.daemon.kill();
    rmSync(this.folder, { recursive: true });
  }
}
