// Holds up a device whose front-ends have passed more than can be let go at once, until most of it has gone.
import type { PeerDisposal } from './peer-disposal.js';
import type { Timer, Timers } from './timers.js';

/** How often it is looked whether to go on, growing from the first to the last. Ours. */
const FIRST_LOOK_MS = 2;
const LAST_LOOK_MS = 1000;
/** What is held for longer is worth a line in the log: something waits for someone. Ours. */
const TOLD_AFTER_MS = 1000;

/** What a hold tells its device. */
export interface HoldEvents {
  readonly goOn: () => void;
  /** It lasts. Told once for each hold. */
  readonly lasts: () => void;
  readonly bug: (error: unknown) => void;
}

/** One device's hold, which begins any number of times. */
export class BacklogHold implements Timer {
  dueMs = Infinity;
  private readonly timers: Timers;
  private readonly disposal: PeerDisposal;
  private readonly on: HoldEvents;
  private lookMs = FIRST_LOOK_MS;
  private heldMs = 0;
  private told = false;

  constructor(timers: Timers, disposal: PeerDisposal, on: HoldEvents) {
    this.timers = timers;
    this.disposal = disposal;
    this.on = on;
  }

  begin(): void {
    if (this.dueMs !== Infinity) return;
    this.lookMs = FIRST_LOOK_MS;
    this.heldMs = 0;
    this.told = false;
    this.timers.armIn(this, this.lookMs);
  }

  onDue(): void {
    if (this.disposal.isDrained()) {
      this.on.goOn();
      return;
    }
    this.heldMs += this.lookMs;
    if (this.heldMs > TOLD_AFTER_MS && !this.told) {
      this.told = true;
      this.on.lasts();
    }
    this.lookMs = Math.min(2 * this.lookMs, LAST_LOOK_MS);
    this.timers.armIn(this, this.lookMs);
  }

  onCrash(error: unknown): void {
    this.on.bug(error);
  }

  end(): void {
    this.timers.disarm(this);
  }
}
