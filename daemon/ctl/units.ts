// systemd as doctor sees it: which unit the daemon is, how units stand, and on which paths socket units listen.
import { SERVICE_UNIT, serviceAt, serviceOf, socketUnitOf } from '../systemd/unit-names.js';
import type { Host } from './host.js';

const SYSTEMD_RUNS = '/run/systemd/system';
/** Of all of a unit that can be asked for. Source: org.freedesktop.systemd1(5). */
const PROPERTIES = 'Id,LoadState,ActiveState,SubState,Result,NRestarts,UnitFileState,MainPID,Listen';

/** How a unit stands; the words are systemd's. */
export interface Unit {
  readonly id: string;
  /** `loaded`, `not-found`, `masked`. */
  readonly load: string;
  /** `active`, `activating`, `failed`, `inactive`, and so on. */
  readonly active: string;
  /** What that is for a unit of its kind: `auto-restart`. */
  readonly sub: string;
  readonly result: string;
  /** How often it was started again by itself. */
  readonly restarts: number;
  /** `enabled`, `disabled`, and so on. */
  readonly file: string;
  /** undefined: no process runs. */
  readonly pid: number | undefined;
  /** Paths on which a socket unit listens. */
  readonly paths: readonly string[];
}

/** What systemd says. */
export interface Systemd {
  /** The daemon's unit. */
  readonly service: Unit | undefined;
  /** The socket unit that starts it. */
  readonly socket: Unit | undefined;
  /** Paths of all socket units: systemd makes those sockets, and listens on them whether or not the daemon runs. */
  readonly paths: ReadonlySet<string>;
}

/** The unit of the daemon of `pid`, of the instance whose control socket is asked, or of the one for all guests. */
export function unitName(host: Host, pid: number | undefined, controlSocket: string): string {
  const cgroups = pid === undefined ? '' : (host.text(`/proc/${pid}/cgroup`) ?? '');
  return serviceOf(cgroups) ?? serviceAt(controlSocket) ?? SERVICE_UNIT;
}

/** Asks systemd; `none`: it does not run here; `silent`: it gives no answer. */
export async function askSystemd(host: Host, service: string): Promise<Systemd | 'none' | 'silent'> {
  if (host.stat(SYSTEMD_RUNS) === undefined) return 'none';
  const socket = socketUnitOf(service);
  const said = await host.run('systemctl', ['show', '-p', PROPERTIES, service, socket, '*.socket']);
  if (said === undefined) return 'silent';
  const units = said.split(/\n\n+/).map(unitOf);
  return {
    service: units.find(({ id }) => id === service),
    socket: units.find(({ id }) => id === socket),
    paths: new Set(units.flatMap(({ paths }) => paths)),
  };
}

/** A unit from the lines that `systemctl show` prints for it. */
function unitOf(text: string): Unit {
  const value = (key: string): string => new RegExp(`^${key}=(.*)$`, 'm').exec(text)?.[1] ?? '';
  return {
    id: value('Id'),
    load: value('LoadState'),
    active: value('ActiveState'),
    sub: value('SubState'),
    result: value('Result'),
    restarts: Number(value('NRestarts')),
    file: value('UnitFileState'),
    pid: Number(value('MainPID')) || undefined,
    paths: [...text.matchAll(/^Listen=(\/.*) \(\w+\)$/gm)].map(([, path = '']) => path),
  };
}
