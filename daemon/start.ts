// Opens what the settings ask for and starts the service: state file, device sockets, control socket; all or nothing.
import { Fault } from '../protocol/fault.js';
import { closeFd, type Fd } from '../shared-memory/fd.js';
import { boundPath } from '../shared-memory/unix-socket.js';
import type { Settings } from './config/settings.js';
import { ControlServer } from './control/server.js';
import { closeSockets, defaultDevice, type DeviceSocket, openSockets } from './device-sockets.js';
import { Handover } from './handover/handover.js';
import { CONTROL, STATE_LOCK } from './handover/passing.js';
import type { Received, Takeover } from './handover/takeover.js';
import { type ListeningSocket, listenOn, removeSocketFile, socketFileOf } from './listening-socket.js';
import { Service, type ServiceSetup } from './service.js';
import { StateFile } from './state-file.js';
import { lockState, noteHolder } from './state-lock.js';
import type { Passed } from './systemd/activation.js';
import { failureOf, filesFix } from './too-few-files.js';

/** Who may read is decided by the file's mode: its owner and its group. */
const CONTROL_SOCKET_MODE = 0o660;

/** What was started. */
export interface Running {
  readonly service: Service;
  readonly stop: () => Promise<void>;
  /** True when nobody has said where to listen, and the default was taken. */
  readonly isDefault: boolean;
}

/**
 * Starts the service; on a fault nothing is left behind, and a process that it would have taken over from serves on. Where too few files
 * can be open the process ends as for a data plane that has failed, to be started again: what is kept of guests waits for that.
 */
export async function startService(
  setup: ServiceSetup,
  passed: Passed,
  takeover: Takeover | undefined,
): Promise<Running | Fault> {
  try {
    return await start(setup, passed, takeover);
  } catch (error) {
    if (!(error instanceof Error) || filesFix(error.message) === undefined) throw error;
    const { code, text } = failureOf(error);
    setup.log.log('error', code, `the service cannot start: ${text}`);
    setup.ended(true, 'too few open files');
    return new Promise(() => undefined);
  }
}

async function start(
  setup: ServiceSetup,
  passed: Passed,
  takeover: Takeover | undefined,
): Promise<Running | Fault> {
  const opened = open(setup, passed, takeover?.received);
  if (opened instanceof Fault) return takeover?.decline(opened.message) ?? opened;
  const { sockets, control, settings } = opened;
  const refused = takeover && (await takeOver(takeover, opened));
  if (refused) {
    closeSockets(sockets);
    if (control?.file !== undefined && !control.shared) removeSocketFile(control.file);
    return refused;
  }
  if (opened.stateLock !== undefined) noteHolder(opened.stateLock);
  const service = new Service(setup, {
    ...opened,
    sources: settings.sources,
    order: settings.deviceDefaults.entropy.specs,
    others: [
      ...(control === undefined ? [] : [{ name: CONTROL, fd: control.fd }]),
      ...(opened.stateLock === undefined ? [] : [{ name: STATE_LOCK, fd: opened.stateLock }]),
    ],
  });
  for (const reason of opened.handover.refused)
    setup.log.log('warn', 'takeover_refused', `a front-end is not taken over, and disconnected: ${reason}`);
  const server = control && serveControl(service, control, setup);
  return {
    service,
    isDefault: opened.isDefault,
    stop: async () => {
      if (control?.file !== undefined && !service.departure.hasLeft) removeSocketFile(control.file);
      const stopped = service.stop();
      server?.close();
      await stopped;
    },
  };
}

/** Everything that is open before anything is served. */
interface Opened {
  readonly state: StateFile | undefined;
  readonly stateLock: Fd | undefined;
  readonly settings: Settings;
  readonly isDefault: boolean;
  readonly sockets: readonly DeviceSocket[];
  readonly control: ControlSocket | undefined;
  readonly handover: Handover;
}

function open(setup: ServiceSetup, passed: Passed, received: Received | undefined): Opened | Fault {
  const { stateFile } = setup.settings;
  const stateLock = stateFile === undefined ? undefined : lockState(stateFile, received?.stateLock);
  if (stateLock instanceof Fault) return stateLock;
  const state = stateFile === undefined ? undefined : StateFile.read(stateFile, setup.log.log);
  if (state instanceof Fault) return state;
  const settings = state === undefined ? setup.settings : state.applyTo(setup.settings);
  const isDefault =
    settings.devices.length === 0 &&
    settings.fd === undefined &&
    settings.control.socketPath === undefined &&
    passed.sockets.length === 0 &&
    passed.control === undefined;
  const fallback = isDefault ? defaultDevice(settings.deviceDefaults) : undefined;
  if (fallback instanceof Fault) return fallback;
  const wanted = fallback === undefined ? settings : { ...settings, devices: [fallback] };
  const sockets = openSockets(wanted, {
    passed: passed.sockets,
    listeners: received?.listeners ?? [],
  });
  if (sockets instanceof Fault) return sockets;
  const control = openControlSocket(settings, passed.control, received?.control);
  if (control instanceof Fault) {
    closeSockets(sockets);
    return control;
  }
  const names = sockets.map((socket) => socket.settings.name);
  const handover = new Handover(received?.kept ?? passed.kept, names, setup.keepAt, setup.log.log);
  return { state, stateLock, settings, isDefault, sockets, control, handover };
}

/** All that the old process had is this one's; a fault: it serves on. No guest may lose by it what it would not have lost there. */
async function takeOver(
  takeover: Takeover,
  { sockets, control, stateLock, handover }: Opened,
): Promise<Fault | undefined> {
  const { received } = takeover;
  const reason = handover.reasonAgainst(sockets, received.frontEnds);
  if (reason !== undefined) return takeover.decline(reason);
  const refused = await takeover.finish();
  if (refused) return refused;
  handover.keepInherited();
  if (stateLock === undefined && received.stateLock !== undefined) closeFd(received.stateLock);
  const served = [...sockets.map(({ fd }) => fd), control?.fd];
  for (const fd of [...received.listeners, received.control])
    if (fd !== undefined && !served.includes(fd)) dropListener(fd);
  return undefined;
}

/** A socket that this process does not serve. */
function dropListener(fd: Fd): void {
  const path = boundPath(fd);
  const file = path === undefined ? undefined : socketFileOf(fd, path);
  if (file !== undefined) removeSocketFile(file);
  closeFd(fd);
}

/** The control socket; `file` is undefined where the service manager listens. */
interface ControlSocket {
  readonly fd: Fd;
  readonly file: ListeningSocket | undefined;
  /** True while a process that this one takes over from still has it too. */
  readonly shared: boolean;
}

/** `activated`: that of the service manager; `received`: that of the process which this one takes over from. */
function openControlSocket(
  { control }: Settings,
  activated: Fd | undefined,
  received: Fd | undefined,
): ControlSocket | Fault | undefined {
  if (activated !== undefined) return { fd: activated, file: undefined, shared: false };
  const { socketPath } = control;
  if (socketPath === undefined) return undefined;
  const taken =
    received !== undefined && boundPath(received) === socketPath
      ? socketFileOf(received, socketPath)
      : undefined;
  if (taken !== undefined) return { fd: taken.fd, file: taken, shared: true };
  const file = listenOn(socketPath, { mode: CONTROL_SOCKET_MODE, group: control.socketGroup });
  return file instanceof Fault ? file : { fd: file.fd, file, shared: false };
}

function serveControl(service: Service, socket: ControlSocket, setup: ServiceSetup): ControlServer {
  service.watch();
  const { log } = setup.log;
  const server = new ControlServer(service, socket.fd, { rules: () => service.accessRules, log });
  service.controlCounts = server.counts;
  return server;
}
