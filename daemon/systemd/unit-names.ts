// Names of units: which service a process is, and which socket unit listens for it. The rules are those of the files in systemd/.

const SERVICE_SUFFIX = '.service';
const SOCKET_SUFFIX = '.socket';
/** One daemon for all guests, and the units of its devices' sockets. */
export const SERVICE_UNIT = 'vhost-rngd.service';
export const CONTROL_SOCKET = '/run/vhost-rngd/control.sock';
const INSTANCE_CONTROL = /^\/run\/vhost-rngd-vm\/([^/]+)\.control$/;
const DEVICE_UNIT = 'vhost-rngd-device@';
/** An instance serves one guest, whose socket unit has its name. */
const INSTANCE = /^vhost-rngd@.+\.service$/;
/** Wanted by vhost-rngd.socket, which brings it back unless it is masked. */
const WANTED_UNIT = 'vhost-rngd-device@rng.socket';

/** The service that a process is, by its `cgroup` file; undefined: it is none. Source: cgroups(7), proc(5). */
export function serviceOf(cgroups: string): string | undefined {
  // Behind a user's own service manager a process may be in a unit of its own, or in a scope: then this is no service.
  return /\/([^/\n]+\.service)$/m.exec(cgroups)?.[1];
}

/** The service that answers on a control socket; undefined: no unit of ours is known to. */
export function serviceAt(controlSocket: string): string | undefined {
  const [, instance] = INSTANCE_CONTROL.exec(controlSocket) ?? [];
  if (instance !== undefined) return `vhost-rngd@${instance}${SERVICE_SUFFIX}`;
  return controlSocket === CONTROL_SOCKET ? SERVICE_UNIT : undefined;
}

/** The socket unit of the service's own name, which brings the control socket too, and so starts what answers there. */
export function socketUnitOf(service: string): string {
  return service.replace(new RegExp(`\\${SERVICE_SUFFIX}$`), SOCKET_SUFFIX);
}

/** Source: systemd.socket(5), FileDescriptorName. */
function listenerUnit(fdName: string, service: string | undefined): string | undefined {
  if (fdName.endsWith(SOCKET_SUFFIX)) return fdName;
  if (service === SERVICE_UNIT) return `${DEVICE_UNIT}${fdName}${SOCKET_SUFFIX}`;
  return service !== undefined && INSTANCE.test(service) ? socketUnitOf(service) : undefined;
}

/** The commands after which nobody listens for `service` on the socket that was passed as `fdName`; undefined: not known. */
export function closingCommands(fdName: string, service: string | undefined): string | undefined {
  const unit = listenerUnit(fdName, service);
  if (service === undefined || unit === undefined) return undefined;
  const how = unit === WANTED_UNIT ? 'mask' : 'disable';
  const rest = unit === socketUnitOf(service) ? 'stop' : 'restart';
  return `systemctl ${how} --now ${unit} && systemctl ${rest} ${service}`;
}
