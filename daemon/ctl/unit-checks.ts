// What doctor looks at of systemd: whether the daemon's unit runs, and which command fits the way in which it does not.
import { type Check, note, ok, problem, shellWord } from './check.js';
import { socketUnitOf } from '../systemd/unit-names.js';
import type { Systemd, Unit } from './units.js';

const NAME = 'systemd';

/** What systemd says of the unit `unit`. */
export function checkSystemd(systemd: Systemd | 'none' | 'silent', unit: string): Check {
  if (systemd === 'none') return ok(NAME, 'does not run here');
  if (systemd === 'silent') return note(NAME, 'systemctl gives no answer');
  const { service, socket } = systemd;
  if (service === undefined || service.load === 'not-found') return note(NAME, `there is no ${unit}`);
  if (service.load === 'masked') return masked(unit, unit);
  switch (service.active) {
    case 'active':
    case 'reloading':
      return ok(NAME, `${unit} is active`);
    case 'failed':
      return problem(NAME, `${unit} has failed: ${service.result}`, journalOf(unit));
    case 'activating':
      return activating(service);
    case 'inactive':
      return inactive(unit, socket);
    default:
      return note(NAME, `${unit} is ${service.active}`, `systemctl status --no-pager ${shellWord(unit)}`);
  }
}

/** The command that starts what answers on a control socket, where nothing else is known of the unit. */
export function startOf(unit: string): string {
  return `sudo systemctl enable --now ${shellWord(socketUnitOf(unit))}`;
}

function journalOf(unit: string): string {
  return `journalctl -u ${shellWord(unit)} -n 50 --no-pager`;
}

function masked(unit: string, toStart: string): Check {
  return note(
    NAME,
    `${unit} is masked: nothing starts it`,
    `sudo systemctl unmask ${shellWord(unit)} && sudo systemctl start ${shellWord(toStart)}`,
  );
}

/** It starts, or has ended at once and is started again. */
function activating({ id, sub, restarts, result }: Unit): Check {
  if (sub !== 'auto-restart' && restarts === 0)
    return note(NAME, `${id} is starting: if it still is when asked again, its log says why`, journalOf(id));
  const reason = result === 'success' ? '' : `: ${result}`;
  return problem(
    NAME,
    `${id} ends and is started again and again, ${restarts} times so far${reason}`,
    journalOf(id),
  );
}

function inactive(unit: string, socket: Unit | undefined): Check {
  if (socket === undefined || socket.load === 'not-found')
    return note(NAME, `${unit} is inactive`, `sudo systemctl enable --now ${shellWord(unit)}`);
  const { id, load, active, file, result } = socket;
  if (load === 'masked') return masked(id, id);
  if (active === 'active') return ok(NAME, `${unit} is inactive: the first connection to ${id} starts it`);
  if (active === 'failed') return problem(NAME, `${id} has failed: ${result}`, journalOf(id));
  const start = file === 'enabled' ? 'start' : 'enable --now';
  return note(NAME, `${unit} is inactive, and so is ${id}`, `sudo systemctl ${start} ${shellWord(id)}`);
}
