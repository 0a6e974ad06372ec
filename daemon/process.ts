// The life of the process: from checked options to READY, signals, and an exit that nothing can hold up.
//
// Exit codes follow sysexits: 0 done, 64 usage, 70 a bug of ours, 78 configuration (a path, a source, a permission).
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { constants as os, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { NATIVE_LITTLE_ENDIAN } from '../protocol/cursor.js';
import { Fault } from '../protocol/fault.js';
import { asFd, setNonBlocking } from '../shared-memory/fd.js';
import { exitNow, ignoreSignal, keepOutOfCoreFiles } from '../shared-memory/libc.js';
import { socketRole } from '../shared-memory/unix-socket.js';
import { DataPlane } from './data-plane.js';
import { MIXED_IN } from './entropy/pools.js';
import { checkSources } from './entropy/source-check.js';
import { parseSourceSpec, type SourceSpec } from './entropy/source-spec.js';
import { isDisposing } from './disposal.js';
import { listenOn, removeSocketFile, type ListeningSocket } from './listening-socket.js';
import { openLog } from './log.js';
import { deviceNames, parseOptions, type Options } from './options.js';
import { qemuLine } from './qemu-line.js';
import type { DeviceOptions, Log } from './rng-device.js';
import { offerTo, STDERR, STDOUT } from './standard-stream.js';

const EX_USAGE = 64;
const EX_SOFTWARE = 70;
const EX_CONFIG = 78;
/** A stop that takes longer ends hard: a thread may hang in a driver that never returns. */
const STOP_TIMEOUT_MS = 2000;

/** Runs the daemon with the command line's arguments; returns when it serves, and the process goes on. */
export async function run(args: readonly string[]): Promise<void> {
  const options = parseOptions(args, version());
  if (typeof options === 'number') return;
  if (options instanceof Fault) {
    fail(options, EX_USAGE, 'vhost-rngd --help lists the options');
    return;
  }
  const refused = NATIVE_LITTLE_ENDIAN ? checkSources(options.sources) : bigEndian();
  if (refused) {
    fail(refused, EX_CONFIG);
    return;
  }
  if (!options.debug) keepOutOfCoreFiles();
  const log = openLog({ format: options.logFormat, level: options.logLevel });
  // Before a socket file is made, or a signal that comes at once would leave it behind. Handlers run in node's event loop,
  // which does not turn before serve() has put its own stop in this place.
  const control: Control = { stop: (status) => process.exit(status), reload: () => undefined };
  handleSignals(control, log);
  const sockets = openSockets(options);
  if (sockets instanceof Fault) {
    fail(sockets, EX_CONFIG);
    return;
  }
  await serve(options, sockets, { log, control });
}

/** What signals do. */
interface Control {
  /** Ends the process in good order: the exit status, and why, for the log. */
  stop: (status: number, reason: string) => void;
  reload: () => void;
}

/** The sources, and the one that is mixed in. */
function withMixedIn(sources: readonly SourceSpec[]): SourceSpec[] {
  const mixedIn = parseSourceSpec(MIXED_IN, false);
  if (mixedIn instanceof Fault) throw mixedIn;
  return sources.some(({ text }) => text === mixedIn.text) ? [...sources] : [...sources, mixedIn];
}

function fail(fault: Fault, status: number, hint?: string): void {
  offerTo(STDERR, `vhost-rngd: ${fault.message}${hint === undefined ? '' : ` (${hint})`} [${fault.code}]\n`);
  process.exitCode = status;
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

function bigEndian(): Fault {
  return new Fault(
    'daemon',
    'big_endian',
    'expected a little-endian host, got a big-endian one: rings are little-endian',
  );
}

/** The sockets to serve, and the files to remove at exit. */
interface Sockets {
  readonly devices: readonly { readonly name: string; readonly fd: number; readonly connected: boolean }[];
  readonly files: readonly ListeningSocket[];
}

function openSockets(options: Options): Sockets | Fault {
  if (options.fd !== undefined) return inheritedSocket(options.fd);
  const fallback = options.socketPaths.length > 0 ? '' : defaultSocketPath();
  if (fallback instanceof Fault) return fallback;
  const paths = options.socketPaths.length > 0 ? options.socketPaths : [fallback];
  const names = deviceNames(paths);
  const files: ListeningSocket[] = [];
  for (const path of paths) {
    const socket = listenOn(path, { mode: options.socketMode, group: options.socketGroup });
    if (socket instanceof Fault) {
      for (const earlier of files) removeSocketFile(earlier);
      return socket;
    }
    files.push(socket);
  }
  return { files, devices: files.map(({ fd }, i) => ({ name: names[i] ?? 'rng', fd, connected: false })) };
}

/** libvirt passes either a listening socket or one end of a connected pair: both are served. */
function inheritedSocket(number: number): Sockets | Fault {
  const role = socketRole(asFd(number));
  if (role === 'not a unix socket') {
    return new Fault(
      'daemon',
      'fd_kind',
      `expected an inherited Unix socket as --fd=${number}, got something else or nothing`,
    );
  }
  setNonBlocking(asFd(number));
  return { files: [], devices: [{ name: `fd${number}`, fd: number, connected: role === 'connected' }] };
}

/** Where a daemon without options listens: a folder of its own, which only this user can write. */
function defaultSocketPath(): string | Fault {
  const runtime = process.env['XDG_RUNTIME_DIR'];
  const uid = process.getuid?.() ?? 0;
  const path =
    runtime?.startsWith('/') === true
      ? join(runtime, 'vhost-rngd', 'rng.sock')
      : uid === 0
        ? '/run/vhost-rngd/rng.sock'
        : join(tmpdir(), `vhost-rngd-${uid}`, 'rng.sock');
  const folder = dirname(path);
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
  return statSync(folder).uid === uid
    ? path
    : new Fault(
        'daemon',
        'socket_file',
        `expected the folder ${folder} to be ours, got another user's: use --socket-path`,
      );
}

async function serve(
  options: Options,
  sockets: Sockets,
  { log, control }: { readonly log: Log; readonly control: Control },
): Promise<void> {
  const { limit, total, memory, sources, busyPollUs } = options;
  const entropy = { specs: sources.map(({ text }) => text), mix: options.mix };
  const devices: DeviceOptions[] = sockets.devices.map((device) => ({
    ...device,
    limit,
    weight: 1,
    memory,
    entropy,
  }));
  let stopping: Promise<void> | undefined;
  control.stop = (status, reason) => {
    stopping ??= shutDown(plane, sockets, { log, status, reason });
  };
  const plane = new DataPlane(
    { devices, sources: options.mix ? withMixedIn(sources) : sources, busyPollUs, total },
    {
      log,
      failed: (reason) => {
        log('error', 'internal', `the data plane failed: ${reason}`);
        control.stop(EX_SOFTWARE, 'the data plane failed');
      },
      lastConnectionEnded: () => control.stop(0, 'the front-end of the inherited connection has gone'),
    },
  );
  control.reload = () => {
    const enabled = plane.enableSources();
    const done = enabled.length > 0 ? `enabled again: ${enabled.join(', ')}` : 'no source had failed';
    log('info', 'reload', `SIGHUP: ${done}; all settings are on the command line`);
  };
  await plane.ready;
  const named = sources.map(({ text }) => text).join(', ');
  for (const device of devices) {
    const path = sockets.files.find(({ fd }) => fd === device.fd)?.path ?? `fd ${device.fd}`;
    const limited = limit === undefined ? 'no limit' : `${limit.maxBytes} bytes per ${limit.periodMs} ms`;
    log('info', 'listening', `listening on ${path}; source ${named}; ${limited}`, { device: device.name });
  }
  const [first] = sockets.files;
  if (options.socketPaths.length === 0 && first !== undefined) {
    offerTo(STDOUT, `\nStart a guest with\n\n${qemuLine(first.path)}\n\nand read /dev/hwrng in it.\n`);
  }
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

/** Stops serving, removes the socket files, and exits; at the latest after the time-out. */
async function shutDown(
  plane: DataPlane,
  sockets: Sockets,
  exit: { readonly log: Log; readonly status: number; readonly reason: string },
): Promise<void> {
  exit.log('info', 'stopping', `stopping: ${exit.reason}`);
  for (const socket of sockets.files) removeSocketFile(socket);
  const deadline = setTimeout(() => {
    exit.log(
      'warn',
      'stop_timeout',
      `a thread did not stop within ${STOP_TIMEOUT_MS} ms; exiting without it`,
    );
    exitNow(exit.status);
  }, STOP_TIMEOUT_MS);
  await plane.stop();
  clearTimeout(deadline);
  if (isDisposing()) exitNow(exit.status);
  process.exit(exit.status);
}
