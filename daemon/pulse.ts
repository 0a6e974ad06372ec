// Whether the data plane still turns: the main thread asks now and then, and its answer is a number in shared memory.
// So health is known at any moment, and whoever asks for it waits for nobody.

const Beat = { Asked: 0, Answered: 1 } as const;
const ASK_EVERY_MS = 1000;
/** A pass over many rings takes milliseconds; a write that blocks is interrupted after 0.2 s. Ours. */
const SILENT_AFTER_MS = 2000;

export function createPulse(): SharedArrayBuffer {
  return new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT * Object.keys(Beat).length);
}

/** The data plane's end. */
export class PulseAnswer {
  private readonly beats: Int32Array;

  constructor(pulse: SharedArrayBuffer) {
    this.beats = new Int32Array(pulse);
  }

  /** Says that the loop turns; called at each wake-up. */
  answer(): void {
    Atomics.store(this.beats, Beat.Answered, Atomics.load(this.beats, Beat.Asked));
  }
}

/** The main thread's end. */
export class PulseWatch {
  private readonly beats: Int32Array;
  private readonly wake: () => void;
  private timer: NodeJS.Timeout | undefined;
  private unansweredSinceMs = Infinity;

  /** `wake` makes the data plane look. */
  constructor(pulse: SharedArrayBuffer, wake: () => void) {
    this.beats = new Int32Array(pulse);
    this.wake = wake;
  }

  /** Asks from now on; only a daemon that someone may ask for its health needs it. */
  start(): void {
    this.timer ??= setInterval(() => this.ask(), ASK_EVERY_MS);
  }

  stop(): void {
    clearInterval(this.timer);
    this.timer = undefined;
  }

  private ask(): void {
    if (!this.isAnswered()) return;
    Atomics.add(this.beats, Beat.Asked, 1);
    this.unansweredSinceMs = performance.now();
    this.wake();
  }

  private isAnswered(): boolean {
    return Atomics.load(this.beats, Beat.Asked) === Atomics.load(this.beats, Beat.Answered);
  }

  /** False when a question has waited too long. */
  get isBeating(): boolean {
    return this.isAnswered() || performance.now() - this.unansweredSinceMs < SILENT_AFTER_MS;
  }
}
