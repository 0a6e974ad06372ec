// Opens what the settings ask for and starts the service: state file, device sockets, control socket; all or nothing.
import { Fault } from '../protocol/fault.js';
import type { Settings } from './config/settings.js';
import { ControlServer } from './control/server.js';
import { closeSockets, defaultDevice, openSockets } from './device-sockets.js';
import { type ListeningSocket, listenOn, removeSocketFile } from './listening-socket.js';
import { Service, type ServiceSetup } from './service.js';
import { StateFile } from './state-file.js';

/** Who may read is decided by the file's mode: its owner and its group. */
const CONTROL_SOCKET_MODE = 0o660;

/** What was started. */
export interface Running {
  readonly service: Service;
  readonly stop: () => Promise<void>;
  /** True when nobody has said where to listen, and the default was taken. */
  readonly isDefault: boolean;
}

/** Starts the service; on a fault nothing is left behind. */
export function startService(setup: ServiceSetup): Running | Fault {
  const state =
    setup.settings.stateFile === undefined
      ? undefined
      : StateFile.read(setup.settings.stateFile, setup.log.log);
  if (state instanceof Fault) return state;
  const settings = state === undefined ? setup.settings : state.applyTo(setup.settings);
  const isDefault =
    settings.devices.length === 0 && settings.fd === undefined && settings.control.socketPath === undefined;
  const fallback = isDefault ? defaultDevice(settings.deviceDefaults) : undefined;
  if (fallback instanceof Fault) return fallback;
  const sockets = openSockets(fallback === undefined ? settings : { ...settings, devices: [fallback] });
  if (sockets instanceof Fault) return sockets;
  const controlSocket = openControlSocket(settings);
  if (controlSocket instanceof Fault) {
    closeSockets(sockets);
    return controlSocket;
  }
  const service = new Service(setup, sockets, state);
  const server = controlSocket && serveControl(service, controlSocket, setup);
  return {
    service,
    isDefault,
    stop: async () => {
      if (controlSocket !== undefined) removeSocketFile(controlSocket);
      const stopped = service.stop();
      server?.close();
      await stopped;
    },
  };
}

function openControlSocket({ control }: Settings): ListeningSocket | Fault | undefined {
  if (control.socketPath === undefined) return undefined;
  return listenOn(control.socketPath, { mode: CONTROL_SOCKET_MODE, group: control.socketGroup });
}

function serveControl(service: Service, socket: ListeningSocket, setup: ServiceSetup): ControlServer {
  service.watch();
  const { log } = setup.log;
  const server = new ControlServer(service, socket.fd, { rules: () => service.accessRules, log });
  service.controlCounts = server.counts;
  return server;
}
