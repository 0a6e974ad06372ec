// Where a data-plane thread keeps what the next process needs: the service manager's store, through a socket of the thread's own.
import type { Log } from '../rng-device.js';
import { NotifySocket } from '../systemd/notify-socket.js';
import { NotifyQueue, type NotifyQueueEvents, RETRY_MS } from '../systemd/notify-queue.js';
import type { Timer, Timers } from '../timers.js';
import { FdVault } from './fd-vault.js';
import type { Keeping } from './front-end-journal.js';

/** What a thread of the service keeps at. */
export interface ServiceKeeping extends Keeping {
  readonly store: NotifyQueue;
}

/** Sends again what the service manager's socket could not take. */
class Retry implements Timer {
  dueMs = Infinity;
  private readonly timers: Timers;
  flush: () => void = () => undefined;

  constructor(timers: Timers) {
    this.timers = timers;
  }

  arm(): void {
    this.timers.armIn(this, RETRY_MS);
  }

  onDue(): void {
    this.flush();
  }

  onCrash(error: unknown): void {
    throw error;
  }
}

/** Opens it; undefined where there is no service manager that asks to be told. */
export function openKeeping(
  address: string | undefined,
  timers: Timers,
  on: Pick<NotifyQueueEvents, 'lost' | 'letGo'>,
): ServiceKeeping | undefined {
  const socket = NotifySocket.open(address);
  if (socket === undefined) return undefined;
  const retry = new Retry(timers);
  const store = new NotifyQueue(socket, { waits: () => retry.arm(), ...on });
  retry.flush = () => store.flush();
  return { store, vault: new FdVault(store), nextRecord: 1 };
}

/** Tells once what the next process will lack. */
export function logLoss(log: Log): (error: string) => void {
  let told = false;
  return (error) => {
    if (!told)
      log(
        'error',
        'keep_failed',
        `the service manager could not be given all that the next process needs (${error}): guests may lose their device when this one ends`,
      );
    told = true;
  };
}
