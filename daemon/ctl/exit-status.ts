// What vhost-rngctl exits with. The numbers above 63 are those of sysexits.h, as the daemon's are.
import type { Fault } from '../../protocol/fault.js';

export const ExitStatus = {
  Ok: 0,
  /** Health is degraded, a test has failed, a check has found a problem. */
  Degraded: 1,
  /** Health is failing. */
  Failing: 2,
  Usage: 64,
  /** The daemon has refused it: no such device, a wrong value. */
  Refused: 65,
  /** No daemon answers. */
  Unavailable: 69,
  Internal: 70,
  /** The control socket, or the change, is not for this user. */
  NoPermission: 77,
} as const;
export type ExitStatus = (typeof ExitStatus)[keyof typeof ExitStatus];

/** The exit statuses as the help and the manual explain them. */
export const EXIT_STATUSES: readonly (readonly [ExitStatus, string])[] = [
  [ExitStatus.Ok, 'done; for health: ok'],
  [ExitStatus.Degraded, 'health is degraded, doctor has found a problem, or a source has failed its test'],
  [ExitStatus.Failing, 'health is failing: guests wait'],
  [ExitStatus.Usage, 'the command line is wrong'],
  [ExitStatus.Refused, 'the daemon has refused it: no such device, a value that cannot be'],
  [ExitStatus.Unavailable, 'no daemon answers on the control socket'],
  [ExitStatus.Internal, 'a bug in vhost-rngctl'],
  [ExitStatus.NoPermission, 'the control socket, or the change, is not for this user'],
];

const BY_CODE: Readonly<Record<string, ExitStatus>> = {
  usage: ExitStatus.Usage,
  control_unreachable: ExitStatus.Unavailable,
  data_plane_silent: ExitStatus.Unavailable,
  control_permission: ExitStatus.NoPermission,
  not_allowed: ExitStatus.NoPermission,
};

/** What a command that ended with this fault exits with. */
export function exitStatusOf({ code }: Fault): ExitStatus {
  return BY_CODE[code] ?? ExitStatus.Refused;
}
