// The life of the process: from checked options to READY, signals, and an exit that nothing can hold up.
//
// Exit codes follow sysexits: 0 done, 64 usage, 70 a bug of ours, 75 another daemon keeps the state file or serves on after --takeover, 78 configuration (a path, a source, a permission).
import { constants as os } from 'node:os';
import { setTimeout as wait } from 'node:timers/promises';
import { NATIVE_LITTLE_ENDIAN } from '../protocol/cursor.js';
import { Fault } from '../protocol/fault.js';
import { exitNow, ignoreSignal, keepOutOfCoreFiles } from '../shared-memory/process-control.js';
import { readConfig } from './config/file.js';
import { joinSettings, type Settings } from './config/settings.js';
import { withActivated } from './device-sockets.js';
import { isDisposing } from './disposal.js';
import { checkSources, isCheckHanging } from './entropy/source-check.js';
import { DaemonLog } from './log.js';
import { type Options, parseOptions } from './options.js';
import { qemuLine } from './qemu-line.js';
import type { Takeover } from './handover/takeover.js';
import type { Log } from './rng-device.js';
import type { Service } from './service.js';
import { offerTo, STDERR, STDOUT } from './standard-stream.js';
import { startService } from './start.js';
import { type Passed, takePassed } from './systemd/activation.js';
import { ServiceManager } from './systemd/service-manager.js';
import { packageVersion } from './version.js';

const EX_USAGE = 64;
const EX_SOFTWARE = 70;
/** Another process still has what this one needs: the next try may succeed. */
const EX_TEMPFAIL = 75;
const MAY_SUCCEED_LATER: readonly string[] = ['state_file_taken', 'takeover'];
const EX_CONFIG = 78;
/**
 * A service manager that starts a failed process anew at once would make a loop of one that fails at its start; and its socket does that too,
 * while a VMM waits at it, whatever the exit status. Ours.
 */
const SHORTEST_FAILED_LIFE_MS = 1000;
/** A stop that takes longer ends hard: a thread may hang in a driver that never returns. */
const STOP_TIMEOUT_MS = 2000;

/** Runs the daemon with the command line's arguments; returns when it serves, and the process goes on. */
export async function run(args: readonly string[]): Promise<void> {
  const passed = takePassed(process.env, process.pid);
  const options = parseOptions(args, packageVersion());
  if (typeof options === 'number') return;
  if (options instanceof Fault) {
    fail(options);
    return;
  }
  const settings = readSettings(options);
  if (settings instanceof Fault) {
    fail(settings);
    return;
  }
  if (options.checkConfig) {
    offerTo(STDOUT, `${options.configFile ?? ''}: ok\n`);
    return;
  }
  const refused = NATIVE_LITTLE_ENDIAN ? await checkSources(settings.sources) : bigEndian();
  if (refused) {
    fail(refused);
    return;
  }
  if (!settings.debug) keepOutOfCoreFiles();
  await serve(options, settings, passed);
}

/** What ends the process in good order, and reads the configuration again. */
interface Control {
  stop: (status: number, reason: string) => void;
  reload: () => void;
}

async function serve(options: Options, settings: Settings, passed: Passed): Promise<void> {
  const log = new DaemonLog({ format: settings.logFormat, level: settings.logLevel });
  // Before a socket file is made, or a signal that comes at once would leave it behind. Handlers run in node's event loop,
  // which does not turn before the service has put its own stop in this place, but in a takeover, where the files are another's.
  const control: Control = {
    stop: (status) => void oldEnough(status).then(() => process.exit(status)),
    reload: () => undefined,
  };
  handleSignals(control, log.log);
  let stopping: Promise<void> | undefined;
  const manager = new ServiceManager(process.env, process.pid);
  const setup = {
    version: packageVersion(),
    settings: withActivated(settings, passed.sockets),
    log,
    keepAt: process.env['NOTIFY_SOCKET'],
    readAgain: options.configFile === undefined ? undefined : () => readAgain(options, passed),
    ended: (failed: boolean, reason: string): void => control.stop(failed ? EX_SOFTWARE : 0, reason),
  };
  const takeover = options.takeover === undefined ? undefined : await beginTakeover(options.takeover);
  if (takeover instanceof Fault) {
    fail(takeover);
    return;
  }
  const running = await startService(setup, passed, takeover);
  if (running instanceof Fault) {
    fail(running);
    return;
  }
  const { service, stop, isDefault } = running;
  control.stop = (status, reason) => {
    if (stopping === undefined) manager.stopping();
    stopping ??= shutDown(stop, { log: log.log, status, reason });
  };
  control.reload = () => {
    manager.reloading();
    service.enableSources('SIGHUP');
    void service.reloadInTurn('SIGHUP').then(() => manager.reloaded());
  };
  if (manager.watches) service.watch();
  await service.ready();
  manager.ready(service);
  if (isDefault) offerQemuLine(service);
}

/** Few starts are a takeover: what it takes is loaded when it is one. */
async function beginTakeover(controlPath: string): Promise<Takeover | Fault> {
  const { Takeover } = await import('./handover/takeover.js');
  return Takeover.begin(controlPath);
}

function offerQemuLine(service: Service): void {
  const socket = service.devices()[0]?.socket;
  if (typeof socket !== 'string') return;
  offerTo(STDOUT, `\nStart a guest with\n\n${qemuLine(socket)}\n\nand read /dev/hwrng in it.\n`);
}

function readSettings(options: Options): Settings | Fault {
  if (options.configFile === undefined) return joinSettings(options, undefined);
  const config = readConfig(options.configFile);
  return config instanceof Fault ? config : joinSettings(options, config);
}

/** The settings of now; sources are checked too, so that a reload is as careful as a start. */
async function readAgain(options: Options, passed: Passed): Promise<Settings | Fault> {
  const settings = readSettings(options);
  if (settings instanceof Fault) return settings;
  return (await checkSources(settings.sources)) ?? withActivated(settings, passed.sockets);
}

function fail(fault: Fault): void {
  const wrongUsage = fault.code === 'usage' || fault.code === 'source_spec';
  const hint = wrongUsage ? ' (vhost-rngd --help lists the options)' : '';
  offerTo(STDERR, `vhost-rngd: ${fault.message}${hint} [${fault.code}]\n`);
  process.exitCode = wrongUsage ? EX_USAGE : MAY_SUCCEED_LATER.includes(fault.code) ? EX_TEMPFAIL : EX_CONFIG;
  // What is still waited for keeps the process until then.
  void oldEnough(process.exitCode);
  if (isCheckHanging()) exitNow(process.exitCode);
}

function bigEndian(): Fault {
  return new Fault(
    'daemon',
    'big_endian',
    'expected a little-endian host, got a big-endian one: rings are little-endian',
  );
}

function handleSignals(control: Control, log: Log): void {
  process.on('SIGTERM', () => control.stop(0, 'SIGTERM'));
  let interrupted = false;
  process.on('SIGINT', () => {
    if (interrupted) exitNow(128 + os.signals.SIGINT);
    interrupted = true;
    control.stop(0, 'SIGINT');
  });
  process.on('SIGHUP', () => control.reload());
  // node opens its debugger on SIGUSR1, for anyone who may signal this process; no handler of ours prevents that.
  ignoreSignal(os.signals.SIGUSR1);
  process.on('uncaughtException', (error) => {
    log('error', 'internal', `a bug in vhost-rngd, please report it: ${error.stack ?? error.message}`);
    control.stop(EX_SOFTWARE, 'a bug');
  });
}

/** Stops serving, and exits; at the latest after the time-out. */
async function shutDown(
  stop: () => Promise<void>,
  exit: { readonly log: Log; readonly status: number; readonly reason: string },
): Promise<void> {
  exit.log('info', 'stopping', `stopping: ${exit.reason}`);
  const deadline = setTimeout(() => {
    exit.log(
      'warn',
      'stop_timeout',
      `a thread did not stop within ${STOP_TIMEOUT_MS} ms; exiting without it`,
    );
    exitNow(exit.status);
  }, STOP_TIMEOUT_MS);
  await stop();
  clearTimeout(deadline);
  await oldEnough(exit.status);
  if (isDisposing() || isCheckHanging()) exitNow(exit.status);
  process.exit(exit.status);
}

/** Resolves when a process that ends with `status` may end. */
async function oldEnough(status: number): Promise<void> {
  const isTriedAgain = process.env['NOTIFY_SOCKET'] !== undefined && status !== 0;
  const youngMs = isTriedAgain ? SHORTEST_FAILED_LIFE_MS - performance.now() : 0;
  if (youngMs > 0) await wait(youngMs);
}
