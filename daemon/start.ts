// Opens what the settings ask for and starts the service: state file, device sockets, control socket; all or nothing.
import { Fault } from '../protocol/fault.js';
import type { Settings } from './config/settings.js';
import { ControlServer } from './control/server.js';
import { closeSockets, defaultDevice, openSockets } from './device-sockets.js';
import { type ListeningSocket, listenOn, removeSocketFile } from './listening-socket.js';
import { Service, type ServiceSetup } from './service.js';
import { StateFile } from './state-file.js';
import { lockState } from './state-lock.js';

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
  const state = openState(setup);
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
  const { sources, deviceDefaults } = settings;
  const service = new Service(setup, { sockets, state, sources, order: deviceDefaults.entropy.specs });
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

function openState({ settings, log }: ServiceSetup): StateFile | Fault | undefined {
  const { stateFile } = settings;
  if (stateFile === undefined) return undefined;
  return lockState(stateFile) ?? StateFile.read(stateFile, log.log);
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
