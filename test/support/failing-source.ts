// A raw source of numbered words that goes wrong at places a test has chosen, in the middle of a word too, and knows how
// many of its bad bytes the tests cannot be expected to see.
import { constants } from 'node:os';
import { BLOCK_BYTES } from '../../daemon/entropy/health-tests.js';
import type { RawSource } from '../../daemon/entropy/source.js';
import { viewOf } from '../../shared-memory/ffi.js';
import type { NumberedWords } from './numbered-words.js';

/** Found for sure within the window of delay, so no byte of them may leave. */
export const VISIBLE = ['run', 'repeatedBlock', 'replayedRead', 'replayAfterReset', 'period'] as const;
/** Seen by statistics only: a block that is bad from end to end never leaves, one that is so in part may. */
export const STATISTICAL = ['text', 'stuckBit', 'biased'] as const;
/** No bad bytes: errors, the end, nothing now, a device that cannot be opened again. */
export const OUTAGES = ['error', 'end', 'silence', 'refused'] as const;

export type FailureKind = (typeof VISIBLE | typeof STATISTICAL | typeof OUTAGES)[number];

export interface Failure {
  readonly kind: FailureKind;
  /** Good bytes since the last one ended. */
  readonly after: number;
  /** It begins where at most so many bytes are missing to a block's end; undefined: wherever it falls. */
  readonly beforeBlockEnd: number | undefined;
  /** Bytes of a bad stretch, at least {@link leastBytes}. */
  readonly bytes: number;
  /** Reads without bytes, or openings that fail. */
  readonly times: number;
  /** It goes on after the device was let go and opened again. */
  readonly sticks: boolean;
  readonly pattern: readonly number[];
}

const READ_BYTES = 2560;
const REPEAT_BYTES = 64;
/** Holds READ_BYTES and more; a power of two. */
const RECENT_BYTES = 4096;
const WORDS_OF_TEXT =
  'the of and to in a is that it was for on are with as his they be at one have this from or had by'.split(
    ' ',
  );

/** A shorter stretch can be missed: good bytes do the like, or no whole block of 64 bytes repeats. */
export function leastBytes(kind: FailureKind): number {
  switch (kind) {
    case 'run':
      return 5;
    case 'repeatedBlock':
      return REPEAT_BYTES;
    case 'period':
      return 4 * REPEAT_BYTES;
    case 'replayedRead':
    case 'replayAfterReset':
      return READ_BYTES;
    default:
      return 1;
  }
}

/** Where it may begin: a multiple of so many bytes since it was opened. */
function alignmentOf(kind: FailureKind): number {
  if (kind === 'repeatedBlock') return REPEAT_BYTES;
  return STATISTICAL.some((other) => other === kind) ? 4 : 1;
}

/** Bytes that must have been given since it was opened. */
function historyOf(kind: FailureKind): number {
  switch (kind) {
    case 'repeatedBlock':
      return REPEAT_BYTES;
    case 'replayedRead':
      return READ_BYTES;
    case 'replayAfterReset':
      return READ_BYTES + REPEAT_BYTES;
    default:
      return 0;
  }
}

/** No source of a test gives as many good words. */
const MOST_WORDS = 2 ** 22;

/** Gives what `failures` say, one after the other, and good words between and after them. */
export class FailingSource implements RawSource {
  /** Good words that were begun. */
  words = 0;
  readonly begun: FailureKind[] = [];
  /** Bad bytes in blocks that were only bad in part, by {@link STATISTICAL} kinds. */
  excusableBytes = 0;
  private readonly numbered: NumberedWords;
  private readonly number: number;
  private readonly failures: Failure[];
  private readonly sizes: readonly number[];
  private reads = 0;
  private goodLeft: number;
  private active: Failure | undefined;
  /** Bytes of the active failure up to now. */
  private done = 0;
  /** Since it was opened. */
  private position = 0;
  private badInBlock = 0;
  private word = 0;
  private readonly answers: number[] = [];
  private refusals = 0;
  /** What was given last, by bytes given in all. */
  private readonly recent = new Uint8Array(RECENT_BYTES);
  private given = 0;
  /** Where a replay begins. */
  private replayFrom = 0;
  private afterReset: Failure | undefined;
  private random: number;
  private text = '';

  constructor(
    { numbered, number }: { readonly numbered: NumberedWords; readonly number: number },
    failures: readonly Failure[],
    sizes: readonly number[],
  ) {
    this.numbered = numbered;
    this.number = number;
    this.failures = [...failures];
    this.sizes = sizes;
    this.goodLeft = failures[0]?.after ?? 0;
    this.random = 1 + number;
  }

  /** Only good bytes are left. */
  get isDone(): boolean {
    return this.failures.length === 0 && this.active === undefined && this.afterReset === undefined;
  }

  open(): string | undefined {
    if (this.refusals > 0) {
      this.refusals--;
      return 'ENOENT';
    }
    this.position = 0;
    this.badInBlock = 0;
    if (this.afterReset !== undefined) {
      this.active = this.afterReset;
      this.afterReset = undefined;
      this.done = 0;
    }
    return undefined;
  }

  read(address: number, length: number): number {
    const most = Math.min(length, this.sizes[this.reads++ % this.sizes.length] ?? length);
    const bytes = viewOf(address, most);
    for (let count = 0; count < most; count++) {
      if (this.answers.length === 0) this.begin();
      if (this.answers.length > 0) return count > 0 ? count : (this.answers.shift() ?? 0);
      const byte = this.active === undefined ? this.goodByte() : this.badByte(this.active);
      bytes[count] = byte;
      this.recent[this.given++ % RECENT_BYTES] = byte;
      this.position++;
      if (this.position % BLOCK_BYTES === 0) {
        if (this.badInBlock < BLOCK_BYTES) this.excusableBytes += this.badInBlock;
        this.badInBlock = 0;
      }
    }
    return most;
  }

  letGo(): void {
    const { active } = this;
    if (active === undefined) return;
    const replays = active.kind === 'repeatedBlock' || active.kind.startsWith('replay');
    if (!active.sticks || replays || active.bytes - this.done < leastBytes(active.kind)) this.end();
  }

  close(): void {
    this.letGo();
  }

  private goodByte(): number {
    const place = this.position % 4;
    if (place === 0) this.word = this.numbered.wordOf(this.number, this.words++);
    if (this.words > MOST_WORDS) throw new Error('too many words');
    this.goodLeft--;
    return (this.word >>> (8 * place)) & 0xff;
  }

  /** The next failure, if it is its turn and its place. */
  private begin(): void {
    const [failure] = this.failures;
    if (this.active !== undefined || failure === undefined || this.goodLeft > 0) return;
    const { kind, beforeBlockEnd } = failure;
    const missing = BLOCK_BYTES - (this.position % BLOCK_BYTES);
    if (beforeBlockEnd !== undefined && missing > Math.max(beforeBlockEnd, alignmentOf(kind))) return;
    if (this.position % alignmentOf(kind) !== 0 || this.position < historyOf(kind)) return;
    this.failures.shift();
    this.begun.push(failure.kind);
    this.done = 0;
    switch (failure.kind) {
      case 'silence':
        for (let i = 0; i < failure.times; i++) this.answers.push(0);
        break;
      case 'end':
        this.answers.push(-constants.errno.ENODATA);
        break;
      case 'error':
        this.answers.push(-constants.errno.EIO);
        break;
      case 'refused':
        this.answers.push(-constants.errno.ENODEV);
        this.refusals = failure.times;
        break;
      case 'replayAfterReset':
        this.answers.push(-constants.errno.EIO);
        this.replayFrom = this.given - (this.position % REPEAT_BYTES) - READ_BYTES;
        this.afterReset = failure;
        break;
      default:
        this.replayFrom = this.given - (failure.kind === 'repeatedBlock' ? REPEAT_BYTES : READ_BYTES);
        this.active = failure;
        return;
    }
    this.goodLeft = this.failures[0]?.after ?? 0;
  }

  private badByte(failure: Failure): number {
    const at = this.done++;
    // Good words begin at whole words.
    if (this.done >= failure.bytes && (this.position + 1) % 4 === 0) this.end();
    switch (failure.kind) {
      case 'run':
        return failure.pattern[0] ?? 0;
      case 'period':
        return failure.pattern[at % failure.pattern.length] ?? 0;
      case 'repeatedBlock':
        return this.recent[(this.replayFrom + (at % REPEAT_BYTES)) % RECENT_BYTES] ?? 0;
      case 'replayedRead':
      case 'replayAfterReset':
        // What was given READ_BYTES ago is still there, and what is given now takes the place of what is older.
        return this.recent[(this.replayFrom + at) % RECENT_BYTES] ?? 0;
      case 'text':
      case 'stuckBit':
      case 'biased':
        this.badInBlock++;
        return this.byteOfBadWord(failure.kind);
      default:
        throw new Error(failure.kind);
    }
  }

  private end(): void {
    this.active = undefined;
    this.goodLeft = this.failures[0]?.after ?? 0;
  }

  /** Words of these kinds may leave, so none of them may be taken for a good one. */
  private byteOfBadWord(kind: (typeof STATISTICAL)[number]): number {
    const place = this.position % 4;
    if (place === 0) {
      do {
        this.word = 0;
        for (let shift = 0; shift < 32; shift += 8) this.word |= this.draw(kind) << shift;
      } while (this.numbered.placeOf(this.word).index < MOST_WORDS);
    }
    return (this.word >>> (8 * place)) & 0xff;
  }

  private draw(kind: (typeof STATISTICAL)[number]): number {
    switch (kind) {
      case 'text':
        return this.letter();
      case 'stuckBit':
        return this.randomByte() | 0x08;
      case 'biased':
        // A bit is one with a chance of 1/2 + 1/16, 56 %.
        return this.randomByte() | (this.randomByte() & this.randomByte() & this.randomByte());
    }
  }

  private letter(): number {
    if (this.text === '') this.text = `${WORDS_OF_TEXT[this.randomByte() % WORDS_OF_TEXT.length] ?? ''} `;
    const letter = this.text.charCodeAt(0);
    this.text = this.text.slice(1);
    return letter;
  }

  private randomByte(): number {
    this.random = (Math.imul(this.random, 1_664_525) + 1_013_904_223) | 0;
    return this.numbered.wordOf(15, this.random & 0xfff_ffff) & 0xff;
  }
}
