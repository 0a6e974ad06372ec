// What doctor looks at of the state file: a daemon that cannot use it does not start, since it would forget what an operator has changed.
import { Fault } from '../../protocol/fault.js';
import { StateFile } from '../state-file.js';
import { type Check, note, ok, problem, shellWord } from './check.js';
import type { Host } from './host.js';
import { thisUser } from './host-user.js';

/** Reads it as the daemon does; `unit`: the daemon's. */
export function checkStateFile(host: Host, path: string, unit: string): Check {
  const name = 'state file';
  const state = StateFile.read(path, () => undefined);
  if (!(state instanceof Fault)) return ok(name, `${path} is in order`);
  const { message } = state;
  if (/\b(EACCES|EPERM)\b/.test(message))
    return note(name, `${path} is not for ${thisUser(host).name} to read`, 'sudo vhost-rngctl doctor');
  const word = shellWord(path);
  return problem(
    name,
    message,
    `sudo mv ${word} ${word}.broken && sudo systemctl restart ${shellWord(unit)}`,
  );
}
