// The cut-offs of the health tests from the entropy that a source claims: the formulas of NIST SP 800-90B (January 2018),
// §4.4.1 and §4.4.2, and ours for repeated blocks. Computed once for each source, when it is opened.

/** Chance that one test on good data gives a transient or a permanent alarm, as the exponent of 2. Ours; see docs/entropy.md. */
const TRANSIENT_ALPHA_LOG2 = -30;
const PERMANENT_ALPHA_LOG2 = -60;

/** Samples (bytes) in a window of the adaptive proportion test. Source: SP 800-90B §4.4.2, for samples that are not binary. */
export const APT_WINDOW_SAMPLES = 512;

/** The length at which each test gives an alarm: equal samples in a row, samples equal to the window's first. */
export interface Cutoffs {
  readonly repetitionTransient: number;
  readonly repetitionPermanent: number;
  readonly proportionTransient: number;
  readonly proportionPermanent: number;
  /** 64-byte blocks in a row that were all seen before; Infinity: the source repeats by chance too often to be judged. */
  readonly repeatedBlocksPermanent: number;
}

/** All cut-offs for `minEntropy` bits a byte, more than 0 and at most 8; `rememberedBlocks` are compared with each block. */
export function cutoffsFor(minEntropy: number, rememberedBlocks: number): Cutoffs {
  return {
    repetitionTransient: repetitionCutoff(minEntropy, TRANSIENT_ALPHA_LOG2),
    repetitionPermanent: repetitionCutoff(minEntropy, PERMANENT_ALPHA_LOG2),
    proportionTransient: proportionCutoff(APT_WINDOW_SAMPLES, minEntropy, TRANSIENT_ALPHA_LOG2),
    proportionPermanent: proportionCutoff(APT_WINDOW_SAMPLES, minEntropy, PERMANENT_ALPHA_LOG2),
    repeatedBlocksPermanent: repeatedBlocksCutoff(minEntropy, rememberedBlocks),
  };
}

/** Equal samples in a row that are an alarm. Source: SP 800-90B §4.4.1, C = 1 + ceil(-log2(alpha) / H). */
export function repetitionCutoff(minEntropy: number, alphaLog2: number): number {
  return 1 + Math.ceil(-alphaLog2 / minEntropy);
}

/**
 * Samples equal to the first of `windowSamples`, itself included, that are an alarm.
 *
 * Source: SP 800-90B §4.4.2, C = 1 + CRITBINOM(W, 2^-H, 1 - alpha). At most W, since FIPS 140-2 IG 7.19 forbids a cut-off that
 * cannot be reached: a source of less than 0.06 bits a byte gives such alarms more often than alpha.
 */
export function proportionCutoff(windowSamples: number, minEntropy: number, alphaLog2: number): number {
  const alpha = 2 ** alphaLog2;
  const logMatch = -minEntropy * Math.LN2;
  const logMiss = Math.log(-Math.expm1(logMatch));
  // The upper tail is summed from its thin end: 1 - alpha would be rounded to 1 where alpha is 2^-60. Only sums of positive
  // terms, each exact to some 1e-13 of itself.
  let logWays = 0;
  let tail = 0;
  for (let matches = windowSamples; matches > 0; matches--) {
    tail += Math.exp(logWays + matches * logMatch + (windowSamples - matches) * logMiss);
    if (tail > alpha) return Math.min(windowSamples, 1 + matches);
    logWays += Math.log(matches / (windowSamples - matches + 1));
  }
  return 1;
}

/**
 * Blocks of 64 bytes in a row, each equal to one of `rememberedBlocks` before it, that are a permanent alarm.
 *
 * Ours: a block of a good source equals a given one with a chance of at most 2^-64H, and any of N with N times that.
 */
export function repeatedBlocksCutoff(minEntropy: number, rememberedBlocks: number): number {
  const chanceLog2 = Math.log2(rememberedBlocks) - 64 * minEntropy;
  return chanceLog2 < 0 ? Math.ceil(PERMANENT_ALPHA_LOG2 / chanceLog2) : Infinity;
}
