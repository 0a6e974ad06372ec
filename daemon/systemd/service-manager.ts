// What the service manager is told of the daemon's life: ready, reloading, stopping, how it stands, and that it is alive. Without
// $NOTIFY_SOCKET nobody is told. Source: sd_notify(3), sd_watchdog_enabled(3).
import { closeFd } from '../../shared-memory/fd.js';
import { MonotonicClock } from '../../shared-memory/monotonic-clock.js';
import type { DeviceStatus, Health, SourceStatus } from '../control/shapes.js';
import { bytesText } from '../units.js';
import { NotifyQueue } from './notify-queue.js';
import { NotifySocket } from './notify-socket.js';

/** How often the status is looked at, and sent when it has changed. Ours. */
const STATUS_EVERY_MS = 5000;
/** Signs of life for each time that one is asked for in. Source: sd_watchdog_enabled(3) recommends two. */
const SIGNS_PER_TIMEOUT = 3;

/** What is told. */
export interface Told {
  health(): Health;
  /** True when the data plane turns; this thread does when it asks. */
  readonly dataPlaneTurns: boolean;
  devices(): readonly DeviceStatus[];
  sources(): readonly SourceStatus[];
}

/** Words to the service manager. */
export class ServiceManager {
  /** For words of a moment; the next one tells as much. */
  private readonly socket: NotifySocket | undefined;
  /** For words that must arrive: without READY=1 the service is ended for not starting. */
  private readonly queue: NotifyQueue | undefined;
  private readonly watchdogMs: number | undefined;
  private readonly timers: NodeJS.Timeout[] = [];
  private lastStatus = '';

  constructor(env: NodeJS.ProcessEnv, pid: number) {
    this.socket = NotifySocket.open(env['NOTIFY_SOCKET']);
    this.queue = NotifyQueue.open(env['NOTIFY_SOCKET'], { lost: () => undefined, letGo: closeFd });
    const { WATCHDOG_USEC: microseconds = '', WATCHDOG_PID: forPid } = env;
    const isOurs = forPid === undefined || forPid === String(pid);
    this.watchdogMs = isOurs && /^\d+$/.test(microseconds) ? Number(microseconds) / 1000 : undefined;
  }

  /** True when signs of life are asked for. */
  get watches(): boolean {
    return this.socket !== undefined && this.watchdogMs !== undefined;
  }

  /** Every socket accepts; from now on the status is kept up to date, and signs of life are given while there are any. */
  ready(told: Told): void {
    if (this.socket === undefined) return;
    this.lastStatus = statusLine(told);
    this.queue?.tell(`READY=1\nSTATUS=${this.lastStatus}`);
    this.timers.push(setInterval(() => this.tellStatus(told), STATUS_EVERY_MS));
    if (this.watchdogMs !== undefined)
      this.timers.push(setInterval(() => this.giveSign(told), this.watchdogMs / SIGNS_PER_TIMEOUT));
  }

  private tellStatus(told: Told): void {
    const line = statusLine(told);
    if (line === this.lastStatus) return;
    this.lastStatus = line;
    this.socket?.send(`STATUS=${line}`);
  }

  /** The control plane gives it, which turns when it does; and only for a data plane that turns too. */
  private giveSign({ dataPlaneTurns }: Told): void {
    if (dataPlaneTurns) this.socket?.send('WATCHDOG=1');
  }

  /** The configuration is read again, until {@link reloaded}. */
  reloading(): void {
    const clock = new MonotonicClock();
    clock.read();
    const microseconds = Math.round((clock.nowMs[0] ?? 0) * 1000);
    this.queue?.tell(`RELOADING=1\nMONOTONIC_USEC=${microseconds}`);
  }

  reloaded(): void {
    this.queue?.tell('READY=1');
  }

  stopping(): void {
    for (const timer of this.timers) clearInterval(timer);
    this.queue?.tell('STOPPING=1');
  }
}

/** For systemctl status: `1 guest on 3 devices, 1.20 MiB served, random:/dev/random healthy`. */
function statusLine(told: Told): string {
  const devices = told.devices();
  const guests = devices.reduce((sum, { frontEnds }) => sum + frontEnds.length, 0);
  const bytes = devices.reduce((sum, device) => sum + device.bytes, 0);
  const sources = told.sources().map(({ spec, state }) => `${spec} ${state}`);
  const counts = `${count(guests, 'guest')} on ${count(devices.length, 'device')}`;
  return `${counts}, ${bytesText(bytes)} served, ${sources.join(', ')}`;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}
