// The daemon in service: its devices, its data plane, and every change that an operator makes while guests run.
//
// Changes are made one after the other. Each is checked as a whole first, then made as a whole, and logged with who made it.
import { Fault } from '../protocol/fault.js';
import { MonotonicClock } from '../shared-memory/monotonic-clock.js';
import type { Settings } from './config/settings.js';
import type { ConnectionCounts } from './control/connections.js';
import { judgeHealth } from './control/health.js';
import type { Metrics } from './control/metrics.js';
import type { Operations } from './control/operations.js';
import type { Peer } from './control/peers.js';
import type {
  DevicePatch,
  DeviceStatus,
  Health,
  NewDevice,
  NewSource,
  Reload,
  SourceStatus,
  Status,
} from './control/shapes.js';
import type { Command, DeviceChange } from './data-plane-messages.js';
import { DataPlane } from './data-plane.js';
import { closeSockets, type DeviceSocket, openAll } from './device-sockets.js';
import type { SourceSpec } from './entropy/source-spec.js';
import type { SourceStatus as SharedStatus } from './entropy/source-status.js';
import { Departure } from './handover/departure.js';
import type { Handover } from './handover/handover.js';
import { ledgerName, type NamedFd, TOTAL } from './handover/kept-names.js';
import { removeSocketFile } from './listening-socket.js';
import type { DaemonLog } from './log.js';
import type { Log } from './rng-device.js';
import { clashOf, ServedDevice, unknownDevice } from './served-device.js';
import { changeText, limitText } from './change-text.js';
import { planReload } from './config/reload-plan.js';
import { silent, SourceControl } from './source-control.js';
import { settingsOf, type StateFile } from './state-file.js';
import { JoinedWork, Turns } from './turns.js';

/** What a service is started with. */
export interface ServiceSetup {
  readonly version: string;
  readonly settings: Settings;
  readonly log: DaemonLog;
  /** The service manager's socket; undefined: none keeps what the next process needs. */
  readonly keepAt: string | undefined;
  /** Reads the configuration file again; a fault when it cannot be used; undefined: there is no file. */
  readonly readAgain: (() => Promise<Settings | Fault>) | undefined;
  /** The data plane has failed, or there is nothing left to serve. */
  readonly ended: (failed: boolean, reason: string) => void;
}

/** What it serves from the start. */
export interface ServiceStart {
  readonly sockets: readonly DeviceSocket[];
  readonly state: StateFile | undefined;
  /** All that is read, and the texts of what devices draw from that say nothing else. */
  readonly sources: readonly SourceSpec[];
  readonly order: readonly string[];
  readonly handover: Handover;
  /** What else a process that takes over needs; borrowed. */
  readonly others: readonly NamedFd[];
}

/** Sockets that are checked for their files, and health for a change, so often. Ours. */
const LOOK_EVERY_MS = 1000;

/** Everything that is served, and what can be asked of it. */
export class Service implements Operations {
  readonly version: string;
  isReady = false;
  /** What the control socket has turned away; undefined: there is none. */
  controlCounts: Readonly<ConnectionCounts> | undefined;
  private readonly setup: ServiceSetup;
  private readonly log: Log;
  private readonly byName = new Map<string, ServedDevice>();
  private readonly plane: DataPlane;
  private readonly state: StateFile | undefined;
  private readonly sourceControl: SourceControl;
  private readonly handover: Handover;
  readonly departure: Departure;
  private readonly clock = new MonotonicClock();
  private readonly startedMs = performance.now();
  private settings: Settings;
  private poolLocked = true;
  private metricsText: Promise<Metrics> | undefined;
  private readonly turns = new Turns();
  private readonly reloads = new JoinedWork(this.turns, (who: string) => this.reloadNow(who));
  private looks: NodeJS.Timeout | undefined;
  private lastHealth: Health['status'] = 'ok';

  /** Starts serving; the sockets are the service's from here on. */
  constructor(setup: ServiceSetup, start: ServiceStart) {
    const { sockets, state, sources, order, handover } = start;
    this.setup = setup;
    this.version = setup.version;
    this.settings = setup.settings;
    this.log = setup.log.log;
    this.state = state;
    this.handover = handover;
    for (const socket of sockets) this.byName.set(socket.settings.name, this.newDevice(socket));
    const { busyPollUs, total } = setup.settings;
    const devices = [...this.byName.values()].map(({ options }) => options);
    const totalLedger = handover.ledgerOf(TOTAL);
    this.plane = new DataPlane(
      {
        devices,
        sources,
        busyPollUs,
        total,
        totalLedger: totalLedger.ledger.address,
        keepAt: handover.keepAt,
        left: handover.leftTo(sockets),
      },
      {
        log: (level, code, message, fields = {}) => {
          this.note(level, code, message, fields);
          this.log(level, code, message, fields);
        },
        failed: ({ code, text }) => {
          this.log('error', code, `the data plane failed: ${text}`);
          setup.ended(true, 'the data plane failed');
        },
        lastConnectionEnded: () => setup.ended(false, 'the front-end of the inherited connection has gone'),
      },
    );
    this.departure = new Departure({
      plane: this.plane,
      keptByManager: handover.keepAt !== undefined,
      inTurn: (work) => this.turns.take(work),
      fds: () => [
        ...[...this.byName.values()].flatMap(({ fds }) => fds),
        { name: ledgerName(TOTAL), fd: totalLedger.fd },
        ...start.others,
      ],
      frontEnds: () => this.frontEndCount,
      leave: () => setup.ended(false, 'another process has taken over'),
      log: this.log,
    });
    this.sourceControl = new SourceControl(
      {
        plane: this.plane,
        devices: () => this.byName.values(),
        allowTestSources: () => this.settings.allowTestSources,
      },
      sources,
      order,
    );
  }

  /** Resolves once every device accepts, with a log line for each. */
  async ready(): Promise<void> {
    await this.plane.ready;
    this.isReady = true;
    for (const { name, greeting } of this.byName.values())
      this.log('info', 'listening', greeting, { device: name });
  }

  /** Looks after what only an operator's questions need: the pulse of the data plane, socket files, changes of health. */
  watch(): void {
    this.plane.watchPulse();
    this.looks ??= setInterval(() => this.look(), LOOK_EVERY_MS);
  }

  private look(): void {
    for (const device of this.byName.values()) void device.lookForFile();
    const { status, reasons } = this.health();
    if (status === this.lastHealth) return;
    this.lastHealth = status;
    const level = status === 'ok' ? 'info' : status === 'degraded' ? 'warn' : 'error';
    this.log(level, 'health', `health is ${status}${reasons.length === 0 ? '' : `: ${reasons.join('; ')}`}`);
  }

  /** Keeps what the data plane and the readers report, whose lines are throttled where they are made. */
  private note(
    level: string,
    code: string,
    message: string,
    fields: Readonly<Record<string, unknown>>,
  ): void {
    const { device } = fields;
    if (code === 'pool_not_locked') this.poolLocked = false;
    const served = typeof device === 'string' ? this.byName.get(device) : undefined;
    if (served !== undefined && (level === 'warn' || level === 'error'))
      served.lastError = { code, message, time: new Date().toISOString() };
  }

  health(): Health {
    return judgeHealth({
      dataPlaneTurns: this.plane.isAlive,
      sources: this.sources(),
      droppedLogLines: this.setup.log.droppedLately,
      poolLocked: this.poolLocked,
      missingSockets: [...this.byName.values()].filter(({ hasFile }) => !hasFile).map(({ name }) => name),
    });
  }

  /** Gives each log record from now on to `listener`; the result ends that. */
  events(listener: (record: string) => void): () => void {
    return this.setup.log.listen(listener);
  }

  /** True when the data plane turns. */
  get dataPlaneTurns(): boolean {
    return this.plane.isAlive;
  }

  private get frontEndCount(): number {
    return this.devices().reduce((sum, { frontEnds }) => sum + frontEnds.length, 0);
  }

  get droppedLogLines(): number {
    return this.setup.log.droppedLines;
  }

  status(): Status {
    return {
      version: this.version,
      pid: process.pid,
      uptimeSeconds: Math.round((performance.now() - this.startedMs) / 100) / 10,
      health: this.health(),
      droppedLogLines: this.droppedLogLines,
      devices: this.devices(),
      sources: [...this.sources()],
    };
  }

  devices(): DeviceStatus[] {
    const nowMs = this.nowMs();
    return [...this.byName.values()].map((device) => device.status(nowMs));
  }

  device(name: string): DeviceStatus | Fault {
    return this.byName.get(name)?.status(this.nowMs()) ?? unknownDevice(name, this.byName.keys());
  }

  sources(): readonly SourceStatus[] {
    return this.sourceControl.statuses();
  }

  private nowMs(): number {
    this.clock.read();
    return this.clock.nowMs[0] ?? 0;
  }

  /** The client library is loaded when it is first asked for. */
  async metrics(): Promise<{ text: string; contentType: string }> {
    this.metricsText ??= import('./control/metrics.js').then(({ Metrics }) => new Metrics(this));
    return (await this.metricsText).text();
  }

  /** Counters of a device, for the metrics. */
  servedDevices(): Iterable<ServedDevice> {
    return this.byName.values();
  }

  /** What the readers of the sources count, for the metrics. */
  sourceCounts(): readonly { readonly spec: string; readonly status: SharedStatus }[] {
    return this.plane.readers.watch.sources;
  }

  async addDevice(peer: Peer, wanted: NewDevice): Promise<DeviceStatus | Fault> {
    return this.turns.take(async () => {
      const clash = clashOf(wanted, this.byName);
      if (clash) return clash;
      const { deviceDefaults } = this.settings;
      const defaults = { specs: this.sourceControl.defaults, mix: deviceDefaults.entropy.mix };
      const entropy = this.sourceControl.choose(wanted, defaults);
      if (entropy instanceof Fault) return entropy;
      const [socket] = asArray(openAll([settingsOf(wanted, deviceDefaults, entropy)]));
      if (socket instanceof Fault || socket === undefined)
        return socket ?? unknownDevice(wanted.name, this.byName.keys());
      const device = await this.serve(socket);
      if (device instanceof Fault) return device;
      this.logChange(
        peer,
        'device_added',
        `added, listening on ${device.place}; ${limitText(device.limit)}`,
        device.name,
      );
      await this.state?.added(wanted);
      return device.status(this.nowMs());
    });
  }

  private newDevice(socket: DeviceSocket): ServedDevice {
    return new ServedDevice(socket, this.handover.ledgerOf(socket.settings.name));
  }

  private async serve(socket: DeviceSocket): Promise<ServedDevice | Fault> {
    const device = this.newDevice(socket);
    this.byName.set(device.name, device);
    return (await this.command({ kind: 'addDevice', device: device.options })) ?? device;
  }

  async changeDevice(peer: Peer, name: string, patch: DevicePatch): Promise<DeviceStatus | Fault> {
    return this.turns.take(async () => {
      const device = this.byName.get(name);
      if (device === undefined) return unknownDevice(name, this.byName.keys());
      const entropy = this.sourceControl.choose(patch, device.entropy);
      if (entropy instanceof Fault) return entropy;
      const hasSources = patch.sources !== undefined || patch.mix !== undefined;
      const change: DeviceChange = {
        ...('limit' in patch && { limit: patch.limit ?? undefined }),
        ...(patch.weight !== undefined && { weight: patch.weight }),
        ...(hasSources && { entropy }),
        ...(patch.sources !== undefined && { ownSources: patch.sources !== null }),
        ...(patch.paused !== undefined && { paused: patch.paused }),
      };
      const failed = await this.command({ kind: 'changeDevice', name, change });
      if (failed) return failed;
      device.take(change);
      this.logChange(peer, 'device_changed', `changed: ${changeText(change)}`, name);
      await this.state?.changed(name, patch);
      return device.status(this.nowMs());
    });
  }

  async removeDevice(peer: Peer, name: string): Promise<Fault | undefined> {
    return this.turns.take(async () => {
      const failed = this.byName.get(name)?.refusesRemoval ?? (await this.drop(name));
      if (failed) return failed;
      this.logChange(peer, 'device_removed', 'removed', name);
      await this.state?.removed(name);
      return undefined;
    });
  }

  private async drop(name: string): Promise<Fault | undefined> {
    const device = this.byName.get(name);
    if (device === undefined) return unknownDevice(name, this.byName.keys());
    if (device.file !== undefined) removeSocketFile(device.file);
    this.byName.delete(name);
    const failed = await this.command({ kind: 'removeDevice', name });
    if (failed === undefined) device.close();
    this.handover.forgetLedger(name);
    return failed;
  }

  /** Reads the configuration again and makes what has changed in it; `who` is for the log. Refused during a reload. */
  async reload(who: string): Promise<Reload | Fault> {
    if (this.reloads.isUnderWay)
      return new Fault('request', 'reload_busy', 'expected one reload at a time, got a second');
    return this.reloadInTurn(who);
  }

  /** As reload(), but after one that is under way, which may have read the file already. */
  async reloadInTurn(who: string): Promise<Reload | Fault> {
    return this.reloads.ask(who);
  }

  private async reloadNow(who: string): Promise<Reload | Fault> {
    const { readAgain } = this.setup;
    if (readAgain === undefined) {
      this.log('info', 'reload', `nothing to reload (${who}): all settings are on the command line`);
      return { changed: [], needsRestart: [] };
    }
    const next = await readAgain();
    if (next instanceof Fault) return this.keepOld(next);
    const plan = planReload(this.settings, next, {
      served: new Set(this.byName.keys()),
      started: this.setup.settings,
    });
    const opened = openAll(plan.add);
    if (opened instanceof Fault) return this.keepOld(opened);
    // What is new was opened a moment ago, when the configuration was read.
    const failed = await this.sourceControl.ensure(next.sources);
    if (failed) {
      closeSockets(opened);
      return this.keepOld(failed);
    }
    this.settings = next;
    this.setup.log.setLevel(next.logLevel);
    for (const name of plan.remove) await this.drop(name);
    for (const socket of opened) await this.serve(socket);
    for (const { name, change } of plan.change) {
      this.byName.get(name)?.take(change);
      await this.command({ kind: 'changeDevice', name, change });
    }
    if (plan.sources !== undefined) {
      await this.sourceControl.follow(plan.sources);
      await this.state?.sourcesChanged(undefined);
    }
    await this.sourceControl.prune();
    if (plan.changesTotal) await this.command({ kind: 'changeTotal', total: next.total });
    const { changed, needsRestart } = plan;
    const said = changed.length === 0 ? 'nothing has changed' : changed.join('; ');
    const later = needsRestart.length === 0 ? '' : `; a restart is needed for: ${needsRestart.join('; ')}`;
    this.log('info', 'reload', `reloaded (${who}): ${said}${later}`);
    return { changed: [...changed], needsRestart: [...needsRestart] };
  }

  async addSource(peer: Peer, wanted: NewSource): Promise<SourceStatus | Fault> {
    return this.changeSources(peer, () => this.sourceControl.add(wanted));
  }

  async orderSources(peer: Peer, texts: readonly string[]): Promise<readonly SourceStatus[] | Fault> {
    return (await this.changeSources(peer, () => this.sourceControl.put(texts))) ?? this.sources();
  }

  async removeSource(peer: Peer, text: string): Promise<Fault | undefined> {
    return this.changeSources(peer, () => this.sourceControl.remove(text));
  }

  private async changeSources<T>({ uid, pid }: Peer, change: () => Promise<T | Fault>): Promise<T | Fault> {
    return this.turns.take(async () => {
      const changed = await change();
      if (changed instanceof Fault) return changed;
      const texts = this.sourceControl.defaultTexts;
      const message = `guests draw from ${texts.join(', ')} (by uid ${uid}, pid ${pid})`;
      this.log('info', 'sources_changed', message, { uid, pid });
      await this.state?.sourcesChanged(texts);
      return changed;
    });
  }

  /** Tries sources that have failed again, also those that have failed for good, or `only` one; `who` is for the log. */
  enableSources(who: string, only?: string): readonly string[] | Fault {
    const enabled = this.sourceControl.enable(only);
    if (enabled instanceof Fault) return enabled;
    if (enabled.length > 0)
      this.log('info', 'sources_enabled', `enabled again (${who}): ${enabled.join(', ')}`);
    return enabled;
  }

  private keepOld(fault: Fault): Fault {
    this.log('error', 'reload_failed', `not reloaded, the old configuration stays: ${fault.message}`);
    return fault;
  }

  /** Users who may do what on the control socket, as of now. */
  get accessRules(): Settings['control'] {
    return this.settings.control;
  }

  private async command(command: Command): Promise<Fault | undefined> {
    return (await this.plane.command(command)) ? undefined : silent();
  }

  private logChange({ uid, pid }: Peer, code: string, message: string, device: string): void {
    this.log('info', code, `${message} (by uid ${uid}, pid ${pid})`, { device, uid, pid });
  }

  /**
   * Ends every connection, or leaves them to the next process where they are kept; resolves when the threads have ended. The
   * socket files that are ours are gone at once.
   */
  async stop(): Promise<void> {
    clearInterval(this.looks);
    const { hasLeft } = this.departure;
    if (!hasLeft) for (const { file } of this.byName.values()) if (file !== undefined) removeSocketFile(file);
    await this.plane.stop(this.handover.keepAt !== undefined || hasLeft);
    this.handover.end();
  }
}

function asArray(opened: DeviceSocket[] | Fault): readonly (DeviceSocket | Fault)[] {
  return opened instanceof Fault ? [opened] : opened;
}
