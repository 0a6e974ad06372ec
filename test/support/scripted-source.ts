// A raw source that does what a test has written down: good bytes, bad stretches, short reads, errors, silence.
import type { RawSource } from '../../daemon/entropy/source.js';
import { viewOf } from '../../shared-memory/ffi.js';
import { goodBytes } from './good-bytes.js';

/** One thing that the source does, in turn. */
export type Step =
  /** Gives these bytes, in as many reads as it takes; `good` ones go into the log of what may reach a guest. */
  | { readonly kind: 'give'; readonly bytes: Uint8Array; readonly good: boolean }
  /** One read gives this: 0, or a negated error number. */
  | { readonly kind: 'answer'; readonly result: number }
  /** The next opening, or the one after a failure, gives this reason. */
  | { readonly kind: 'refuse'; readonly reason: string };

/** Gives `steps` and then nothing. */
export class ScriptedSource implements RawSource {
  failure: string | undefined;
  opens = 0;
  closed = false;
  /** All good bytes that were read, in order. */
  readonly good: Buffer[] = [];
  private readonly steps: Step[];
  private offset = 0;
  /** What a read gives at most, in turn. */
  private readonly sizes: readonly number[];
  private reads = 0;

  constructor(steps: readonly Step[] = [], sizes: readonly number[] = [Infinity]) {
    this.steps = [...steps];
    this.sizes = sizes;
  }

  add(...steps: readonly Step[]): void {
    this.steps.push(...steps);
  }

  /** Everything was given. */
  get isDone(): boolean {
    return this.steps.length === 0;
  }

  open(): string | undefined {
    this.opens++;
    const [step] = this.steps;
    if (step?.kind !== 'refuse') return undefined;
    this.steps.shift();
    return step.reason;
  }

  read(address: number, length: number): number {
    const [step] = this.steps;
    if (step === undefined || step.kind === 'refuse') return 0;
    if (step.kind === 'answer') {
      this.steps.shift();
      return step.result;
    }
    const most = this.sizes[this.reads++ % this.sizes.length] ?? Infinity;
    const count = Math.min(length, most, step.bytes.length - this.offset);
    const bytes = step.bytes.subarray(this.offset, this.offset + count);
    viewOf(address, count).set(bytes);
    if (step.good) this.good.push(Buffer.from(bytes));
    this.offset += count;
    if (this.offset === step.bytes.length) {
      this.steps.shift();
      this.offset = 0;
    }
    return count;
  }

  letGo(): void {
    // A step that was begun is over: what a device had for a reader that went away is lost.
    if (this.offset > 0) this.steps.shift();
    this.offset = 0;
  }

  close(): void {
    this.closed = true;
  }
}

/** A step of good bytes, `length` of stream `stream`. */
export function good(length: number, stream: number): Step {
  return { kind: 'give', bytes: goodBytes(length, stream), good: true };
}

/** A step of bytes that must not reach a guest. */
export function bad(bytes: Uint8Array): Step {
  return { kind: 'give', bytes, good: false };
}

export function answer(result: number): Step {
  return { kind: 'answer', result };
}
