// The sockets of the devices at start: paths that are claimed, an inherited socket, or the default path.
import { mkdirSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Fault } from '../protocol/fault.js';
import { asFd, closeFd, type Fd, setNonBlocking } from '../shared-memory/fd.js';
import { boundPath, socketRole } from '../shared-memory/unix-socket.js';
import type { DeviceDefaults, DeviceSettings } from './config/device-settings.js';
import type { Settings } from './config/settings.js';
import { type ListeningSocket, listenOn, removeSocketFile, socketFileOf } from './listening-socket.js';
import { deviceNames } from './options.js';
import type { NamedFd } from './handover/kept-names.js';

/** A device with the socket that it is to serve. */
export interface DeviceSocket {
  /** An inherited socket has no path. */
  readonly settings: Omit<DeviceSettings, 'socketPath'> & { readonly socketPath: string | undefined };
  readonly fd: Fd;
  /** Where it listens, as far as that is known. */
  readonly path: string | undefined;
  /** The file to remove in the end; undefined: not ours. */
  readonly file: ListeningSocket | undefined;
  /** True for an inherited socket that is connected already. */
  readonly connected: boolean;
  /** The name under which the service manager has passed it, as it will at the next start. */
  readonly passedAs?: string;
  /** True while a process that this one takes over from still has it too. */
  readonly shared?: boolean;
}

/** Sockets that are open already. */
export interface OpenSockets {
  /** By the service manager, under their names. */
  readonly passed: readonly NamedFd[];
  /** By the process that this one takes over from. */
  readonly listeners: readonly Fd[];
}

/** Opens every socket that the settings ask for and that is not open, or none. */
export function openSockets(settings: Settings, { passed, listeners }: OpenSockets): DeviceSocket[] | Fault {
  if (settings.fd !== undefined) return inheritedSocket(settings.fd, settings.deviceDefaults);
  const activated = passed.map((one) => activatedSocket(one, settings));
  const taken = settings.devices.flatMap((device) => takenSocket(device, listeners) ?? []);
  const served = [...activated, ...taken].map((socket) => socket.settings.name);
  const opened = openAll(settings.devices.filter(({ name }) => !served.includes(name)));
  return opened instanceof Fault ? opened : [...activated, ...taken, ...opened];
}

/** The device's socket, if it is among those of the process before. */
function takenSocket(settings: DeviceSettings, listeners: readonly Fd[]): DeviceSocket | undefined {
  const fd = listeners.find((listener) => boundPath(listener) === settings.socketPath);
  const file = fd && socketFileOf(fd, settings.socketPath);
  return file && { settings, fd: file.fd, path: file.path, file, connected: false, shared: true };
}

/** The settings with a device for each socket that the service manager listens on, where they do not name it. */
export function withActivated(settings: Settings, passed: readonly NamedFd[]): Settings {
  const more = passed.flatMap((one) => {
    const { socketPath, ...device } = activatedSocket(one, settings).settings;
    const isThere = settings.devices.some(({ name }) => name === device.name);
    return isThere || socketPath === undefined ? [] : [{ ...device, socketPath }];
  });
  return { ...settings, devices: [...settings.devices, ...more] };
}

/** A socket that the service manager listens on: that of the device of its name or path, or of a device more. */
function activatedSocket({ name, fd }: NamedFd, { devices, deviceDefaults }: Settings): DeviceSocket {
  const path = boundPath(fd);
  setNonBlocking(fd);
  const configured = devices.find((device) => device.name === name || device.socketPath === path);
  const ownName = deviceNames([path ?? name])[0] ?? name;
  const settings = configured ?? {
    ...deviceDefaults,
    name: isUnitsOwnName(name) ? ownName : name,
    socketPath: path,
  };
  const connected = socketRole(fd) === 'connected';
  return { settings, fd, path, file: undefined, connected, passedAs: name };
}

/** A socket without FileDescriptorName is named after its unit. Source: systemd.socket(5). */
function isUnitsOwnName(name: string): boolean {
  return name === 'unknown' || name.endsWith('.socket');
}

/** Opens a socket for each device, or none. */
export function openAll(devices: readonly DeviceSettings[]): DeviceSocket[] | Fault {
  const opened: DeviceSocket[] = [];
  for (const device of devices) {
    const file = listenOn(device.socketPath, { mode: device.socketMode, group: device.socketGroup });
    if (file instanceof Fault) {
      closeSockets(opened);
      return file;
    }
    opened.push({ settings: device, fd: file.fd, path: file.path, file, connected: false });
  }
  return opened;
}

/** Lets go of sockets that are not served after all. */
export function closeSockets(sockets: readonly DeviceSocket[]): void {
  for (const { file, fd, shared = false } of sockets) {
    if (file === undefined || shared) continue;
    removeSocketFile(file);
    closeFd(fd);
  }
}

/** libvirt passes either a listening socket or one end of a connected pair: both are served. */
function inheritedSocket(number: number, defaults: DeviceDefaults): DeviceSocket[] | Fault {
  const fd = asFd(number);
  const role = socketRole(fd);
  if (role === 'not a unix socket') {
    return new Fault(
      'daemon',
      'fd_kind',
      `expected an inherited Unix socket as --fd=${number}, got something else or nothing`,
    );
  }
  setNonBlocking(fd);
  const settings = { ...defaults, name: `fd${number}`, socketPath: undefined };
  return [{ settings, fd, path: undefined, file: undefined, connected: role === 'connected' }];
}

/** The device of a daemon that is told nothing: in a folder of its own, which only this user can write. */
export function defaultDevice(defaults: DeviceDefaults): DeviceSettings | Fault {
  const runtime = process.env['XDG_RUNTIME_DIR'];
  const uid = process.getuid?.() ?? 0;
  const socketPath =
    runtime?.startsWith('/') === true
      ? join(runtime, 'vhost-rngd', 'rng.sock')
      : uid === 0
        ? '/run/vhost-rngd/rng.sock'
        : join(tmpdir(), `vhost-rngd-${uid}`, 'rng.sock');
  const folder = dirname(socketPath);
  try {
    mkdirSync(folder, { mode: 0o750 });
  } catch (error) {
    const { code = 'an error' } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST') {
      return new Fault(
        'daemon',
        'socket_file',
        `making the folder ${folder} failed: ${code}; use --socket-path`,
      );
    }
  }
  if (statSync(folder).uid === uid)
    return { ...defaults, name: deviceNames([socketPath])[0] ?? 'rng', socketPath };
  return new Fault(
    'daemon',
    'socket_file',
    `expected the folder ${folder} to be ours, got another user's: use --socket-path`,
  );
}
