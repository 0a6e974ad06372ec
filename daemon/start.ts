// Opens what the settings ask for and starts the service: state file, device sockets, control socket; all or nothing.
import { Fault } from '../protocol/fault.js';
import type { Fd } from '../shared-memory/fd.js';
import type { Settings } from './config/settings.js';
import { ControlServer } from './control/server.js';
import { closeSockets, defaultDevice, openSockets } from './device-sockets.js';
import { Handover } from './handover/handover.js';
import { type ListeningSocket, listenOn, removeSocketFile } from './listening-socket.js';
import { Service, type ServiceSetup } from './service.js';
import { StateFile } from './state-file.js';
import { lockState } from './state-lock.js';
import type { Passed } from './systemd/activation.js';

/** Who may read is decided by the file's mode: its owner and its group. */
const CONTROL_SOCKET_MODE = 0o660;

/** The name of a passed socket that is the control socket. */
const CONTROL_NAME = 'control';

/** What was started. */
export interface Running {
  readonly service: Service;
  readonly stop: () => Promise<void>;
  /** True when nobody has said where to listen, and the default was taken. */
  readonly isDefault: boolean;
}

/** Starts the service; on a fault nothing is left behind. */
export function startService(setup: ServiceSetup, passed: Passed): Running | Fault {
  const state = openState(setup);
  if (state instanceof Fault) return state;
  const settings = state === undefined ? setup.settings : state.applyTo(setup.settings);
  const isDefault =
    settings.devices.length === 0 &&
    settings.fd === undefined &&
    settings.control.socketPath === undefined &&
    passed.sockets.length === 0;
  const fallback = isDefault ? defaultDevice(settings.deviceDefaults) : undefined;
  if (fallback instanceof Fault) return fallback;
  const wanted = fallback === undefined ? settings : { ...settings, devices: [fallback] };
  const devicesPassed = passed.sockets.filter(({ name }) => name !== CONTROL_NAME);
  const sockets = openSockets(wanted, devicesPassed);
  if (sockets instanceof Fault) return sockets;
  const controlSocket = openControlSocket(settings, passed.sockets);
  if (controlSocket instanceof Fault) {
    closeSockets(sockets);
    return controlSocket;
  }
  const { sources, deviceDefaults } = settings;
  const names = sockets.map((socket) => socket.settings.name);
  const { keepAt } = setup;
  const handover = new Handover(passed.kept, names, { keepAt, log: setup.log.log });
  const order = deviceDefaults.entropy.specs;
  const service = new Service(setup, { sockets, state, sources, order, handover });
  const server = controlSocket && serveControl(service, controlSocket, setup);
  return {
    service,
    isDefault,
    stop: async () => {
      if (controlSocket?.file !== undefined) removeSocketFile(controlSocket.file);
      const stopped = service.stop();
      server?.close();
      await stopped;
    },
  };
}

function openState({ settings, log }: ServiceSetup): StateFile | Fault | undefined {
  const { stateFile } = settings;
  if (stateFile === undefined) return undefined;
  return lockState(stateFile) ?? StateFile.read(stateFile, log.log);
}

/** The control socket; `file` is undefined where the service manager listens. */
interface ControlSocket {
  readonly fd: Fd;
  readonly file: ListeningSocket | undefined;
}

function openControlSocket(
  { control }: Settings,
  passed: Passed['sockets'],
): ControlSocket | Fault | undefined {
  const activated = passed.find(({ name }) => name === CONTROL_NAME);
  if (activated !== undefined) return { fd: activated.fd, file: undefined };
  if (control.socketPath === undefined) return undefined;
  const file = listenOn(control.socketPath, { mode: CONTROL_SOCKET_MODE, group: control.socketGroup });
  return file instanceof Fault ? file : { fd: file.fd, file };
}

function serveControl(service: Service, socket: ControlSocket, setup: ServiceSetup): ControlServer {
  service.watch();
  const { log } = setup.log;
  const server = new ControlServer(service, socket.fd, { rules: () => service.accessRules, log });
  service.controlCounts = server.counts;
  return server;
}
