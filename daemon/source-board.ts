// The sources as an operator sees them, for health, status and metrics.
import type { SourceStatus } from './control/shapes.js';
import { HealthCount } from './entropy/health-tests.js';
import type { SourceSpec } from './entropy/source-spec.js';
import type { SourceWatch, WatchedSource } from './entropy/source-watch.js';

/** What is known of each source now, in the order of `specs`. */
export function sourceStatuses(watch: SourceWatch, specs: readonly SourceSpec[]): SourceStatus[] {
  return specs.flatMap(({ text, minEntropy }) => {
    const source = watch.sources.find(({ spec }) => spec === text);
    return source === undefined ? [] : [statusOf(watch, source, minEntropy)];
  });
}

function statusOf(watch: SourceWatch, source: WatchedSource, minEntropy: number): SourceStatus {
  const { spec, status, reason } = source;
  const state = watch.stateOf(source);
  const count = (what: HealthCount): number => status.counts[what] ?? 0;
  return {
    spec,
    state,
    reason: state === 'healthy' ? null : reason,
    permanent: status.permanent,
    minEntropy,
    bytes: status.figure('releasedBytes'),
    failures: status.figure('failures'),
    reopens: status.figure('reopens'),
    alarms: {
      repetition: count(HealthCount.RepetitionAlarms),
      adaptive: count(HealthCount.AdaptiveAlarms),
      permanent: count(HealthCount.PermanentAlarms),
    },
    repeatedBlocks: count(HealthCount.RepeatedBlocks),
    fips: { blocks: count(HealthCount.FipsBlocks), failures: count(HealthCount.FipsFailures) },
  };
}
