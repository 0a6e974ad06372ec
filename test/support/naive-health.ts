// The health tests again, byte by byte as the standard writes them: the oracle of the word-wise ones.
import { cutoffsFor } from '../../daemon/entropy/health-cutoffs.js';
import { Verdict, WINDOW_BYTES } from '../../daemon/entropy/health-tests.js';

/** NIST SP 800-90B §4.4.1 and §4.4.2 over windows, and each 64-byte block compared with all before. */
export class NaiveHealth {
  repetitionAlarms = 0;
  adaptiveAlarms = 0;
  permanentAlarms = 0;
  /** Blocks that equal any before, and those that equal the very one before. */
  repeatedBlocks = 0;
  repeatedAtOnce = 0;
  private readonly cutoffs;
  private readonly seen = new Set<string>();
  private lastBlock = '';
  private last = -1;
  private run = 0;

  constructor(minEntropy: number) {
    this.cutoffs = cutoffsFor(minEntropy, 1);
  }

  /** The verdict of repetition count and adaptive proportion alone. */
  testWindow(window: Uint8Array): Verdict {
    const { repetitionTransient, repetitionPermanent, proportionTransient, proportionPermanent } =
      this.cutoffs;
    let longest = 0;
    let matches = 0;
    for (let i = 0; i < WINDOW_BYTES; i++) {
      const sample = window[i] ?? 0;
      if (sample === this.last) {
        this.run++;
      } else {
        this.last = sample;
        this.run = 1;
      }
      longest = Math.max(longest, this.run);
      if (sample === window[0]) matches++;
    }
    for (let at = 0; at < WINDOW_BYTES; at += 64) this.seeBlock(window.subarray(at, at + 64));
    if (longest >= repetitionTransient) this.repetitionAlarms++;
    if (matches >= proportionTransient) this.adaptiveAlarms++;
    const permanent = longest >= repetitionPermanent || matches >= proportionPermanent;
    if (permanent) this.permanentAlarms++;
    if (permanent) return Verdict.Permanent;
    return longest >= repetitionTransient || matches >= proportionTransient
      ? Verdict.Transient
      : Verdict.Pass;
  }

  restart(): void {
    this.last = -1;
    this.run = 0;
  }

  private seeBlock(block: Uint8Array): void {
    const hex = Buffer.from(block).toString('hex');
    if (this.seen.has(hex)) this.repeatedBlocks++;
    if (hex === this.lastBlock) this.repeatedAtOnce++;
    this.seen.add(hex);
    this.lastBlock = hex;
  }
}
