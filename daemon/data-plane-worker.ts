// The data-plane thread: it owns every vhost-user connection, mapping and ring, and blocks in epoll_wait(2) only.
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { assertNever } from '../protocol/assert-never.js';
import { Fault } from '../protocol/fault.js';
import { readEventfd } from '../shared-memory/eventfd.js';
import { asFd } from '../shared-memory/fd.js';
import { poll, POLLIN } from '../shared-memory/libc.js';
import { setThreadName } from '../shared-memory/process-control.js';
import type { DataPlaneMessage, DataPlaneSetup, MainMessage } from './data-plane-messages.js';
import { DeviceTable } from './device-table.js';
import { FedSource } from './entropy/fed-queue.js';
import { Pools } from './entropy/pools.js';
import { SourceStatus } from './entropy/source-status.js';
import { Starvation } from './entropy/starvation.js';
import { EventLoop, watchWakeUp } from './event-loop.js';
import { logLoss, openKeeping } from './handover/keeping.js';
import { KeptFiles } from './handover/kept-files.js';
import { Ledger } from './ledger.js';
import { PeerCalls } from './peer-calls.js';
import { PeerDisposal } from './peer-disposal.js';
import { PulseAnswer } from './pulse.js';
import type { Log } from './rng-device.js';
import { SharedBudget } from './shared-budget.js';

/** Below all that the main thread disposes of by itself. */
const DATA_PLANE_LANES = -1_000_000_000;

/** A time-out of poll(2). */
const FOR_EVER = -1;

const setup = workerData as DataPlaneSetup;
setThreadName('data-plane');

function post(message: DataPlaneMessage): void {
  parentPort?.postMessage(message);
}

const log: Log = (level, code, message, fields = {}) => post({ kind: 'log', level, code, message, fields });

const loop = new EventLoop(setup.busyPollUs, new PeerCalls(setup.mark), () => pools.topUp());
const starvation = new Starvation(loop.timers);
const sources = setup.sources.map(
  ({ spec, queue, status }) => new FedSource(spec.text, queue, new SourceStatus(status)),
);
const pools = new Pools(sources, (to, from) => post({ kind: 'sourceSwitch', to, from }));
const budget = new SharedBudget(setup.total, loop.clock, loop.timers, new Ledger(setup.totalLedger).limiter);
const keeping = openKeeping(setup.keepAt, loop.timers, {
  lost: logLoss(log),
  letGo: (fd) => alone().closeFd(fd),
});
if (keeping !== undefined) keeping.nextRecord = setup.left.nextRecord;
const kept = new KeptFiles(setup.left.files, keeping?.vault);

let lanes = 0;

/** Lets go of something that is no seat's, for itself: what makes it wait holds up nothing else. */
function alone(): PeerDisposal {
  // The main thread counts its own from -1 down.
  return new PeerDisposal(DATA_PLANE_LANES - lanes++, post, (fd) => keeping?.vault.release(fd));
}

let stopping = false;
let leaves = false;
let frozen = false;
const pulse = new PulseAnswer(setup.pulse);
const devices = new DeviceTable({
  loop,
  pools,
  starvation,
  budget,
  log,
  keeping,
  post,
  connected: (count) => {
    if (count < 0) loop.pause();
  },
  lastConnectionEnded: () => post({ kind: 'lastConnectionEnded' }),
});

watchWakeUp(loop, setup.wakeFd, () => {
  pulse.answer();
  receive();
  if (frozen) standStill();
  if (stopping) loop.pause();
  starvation.resumeAll();
});

function receive(): void {
  if (parentPort === null) return;
  for (
    let got = receiveMessageOnPort(parentPort);
    got !== undefined;
    got = receiveMessageOnPort(parentPort)
  ) {
    take(got.message as MainMessage);
  }
}

function take(message: MainMessage): void {
  switch (message.kind) {
    case 'stop':
      stopping = true;
      leaves = message.keep;
      return;
    case 'freeze':
      frozen = true;
      post({ kind: 'frozen', id: message.id, sent: sendAll(message.address) });
      return;
    case 'thaw':
      frozen = false;
      return;
    case 'command':
      devices.carryOut(message.command);
      post({ kind: 'done', id: message.id });
      return;
    default:
      assertNever(message);
  }
}

/** Sends every front-end with all that it needs; true when it went out. */
function sendAll(address: string): boolean {
  const there = openKeeping(address, loop.timers, {
    lost: () => undefined,
    letGo: (fd) => alone().closeFd(fd),
  });
  if (there === undefined) return false;
  try {
    devices.record(there);
    return there.store.drain();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    log('warn', 'handover_failed', `a front-end cannot be handed over: ${error.message}`);
    return false;
  } finally {
    there.store.close();
  }
}

/** Another process may serve the rings by now: until a message comes nothing is touched, not even what this round has brought. */
function standStill(): void {
  while (frozen) {
    poll(setup.wakeFd, POLLIN, FOR_EVER);
    readEventfd(asFd(setup.wakeFd));
    pulse.answer();
    receive();
    if (stopping) {
      end();
      process.exit();
    }
  }
}

/** Runs until something asks for a pause, then lets the thread's own event loop turn once: dropped views go there. */
function turn(): void {
  loop.run();
  if (!stopping) {
    setImmediate(turn);
    return;
  }
  end();
}

function end(): void {
  // What is kept stays as it is: its fds close with the process, and others stand for the same files.
  if (!leaves) devices.close();
  keeping?.store.drain();
  pools.close();
  loop.close();
}

for (const device of setup.devices) devices.carryOut({ kind: 'addDevice', device });
if (!pools.locked || setup.sources.some(({ queue }) => !queue.locked)) devices.logNotLocked();
devices.goOn(setup.left.devices, (number) => kept.take(number));
kept.letGo(alone);
keeping?.vault.flush();
post({ kind: 'serving' });
setImmediate(turn);
