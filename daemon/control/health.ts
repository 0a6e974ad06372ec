// Health: from what the main thread knows already, so that the answer never waits.
import type { Health, SourceStatus } from './shapes.js';

/** What health is made of. */
export interface HealthFacts {
  /** False when the data plane does not turn. */
  readonly dataPlaneTurns: boolean;
  readonly sources: readonly SourceStatus[];
  /** Log lines that were lost lately. */
  readonly droppedLogLines: number;
  readonly poolLocked: boolean;
  /** Devices whose socket file has gone. */
  readonly missingSockets: readonly string[];
}

const NO_SOURCE = 'no source is healthy: requests are held until one is';
const STARTING = /^source \S+ is starting\b/;

/** True when nothing is wrong but that sources have not passed their start-up tests yet, which takes some 0.1 s. */
export function isOnlyStarting({ reasons }: Health): boolean {
  return (
    reasons.some((reason) => STARTING.test(reason)) &&
    reasons.every((reason) => reason === NO_SOURCE || STARTING.test(reason))
  );
}

/** The verdict, and a sentence for each reason. */
export function judgeHealth(facts: HealthFacts): Health {
  const failing = failures(facts);
  const degraded = flaws(facts);
  const status = failing.length > 0 ? 'failing' : degraded.length > 0 ? 'degraded' : 'ok';
  return { status, reasons: [...failing, ...degraded] };
}

function failures({ dataPlaneTurns, sources }: HealthFacts): string[] {
  const reasons: string[] = [];
  if (!dataPlaneTurns) reasons.push('the data plane does not answer: guests may be waiting');
  if (!sources.some(({ state }) => state === 'healthy')) {
    reasons.push(NO_SOURCE);
  }
  return reasons;
}

function flaws({ sources, droppedLogLines, poolLocked, missingSockets }: HealthFacts): string[] {
  const reasons = sources
    .filter(({ state }) => state !== 'healthy')
    .map(({ spec, state, reason }) => `source ${spec} is ${state}${reason === null ? '' : `: ${reason}`}`);
  if (droppedLogLines > 0) reasons.push(`${droppedLogLines} log lines were lost: standard error was full`);
  if (!poolLocked) reasons.push('waiting entropy is not locked in RAM: raise LimitMEMLOCK');
  for (const name of missingSockets) {
    reasons.push(`the socket file of ${name} has gone: its guest is served, a new one cannot connect`);
  }
  return reasons;
}
