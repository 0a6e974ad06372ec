// The sources that a request asks for on a device, checked against those that the daemon runs.
import { Fault } from '../protocol/fault.js';
import type { Settings } from './config/settings.js';
import { FieldFault } from './control/route.js';
import { MIXED_IN, type SourceChoice } from './entropy/pools.js';
import { parseSourceSpec } from './entropy/source-spec.js';

/** What a request says of sources; what it does not say stays. */
export interface WantedSources {
  /** null: those of the daemon. */
  readonly sources?: readonly string[] | null | undefined;
  readonly mix?: boolean | undefined;
}

/** The choice, in full texts; a fault names the field that asks for a source that does not run. */
export function chooseSources(
  wanted: WantedSources,
  before: SourceChoice,
  settings: Pick<Settings, 'sources' | 'allowTestSources'> & { readonly defaults: readonly string[] },
): SourceChoice | Fault {
  const running = settings.sources.map(({ text }) => text);
  const specs: string[] = [];
  const { sources = before.specs } = wanted;
  for (const text of sources ?? settings.defaults) {
    const spec = parseSourceSpec(text, settings.allowTestSources);
    if (spec instanceof Fault) return new FieldFault('sources', spec.message);
    if (!running.includes(spec.text)) return notRunning('sources', spec.text, running);
    if (specs.includes(spec.text))
      return new FieldFault('sources', `expected each source once, got ${spec.text} twice`);
    specs.push(spec.text);
  }
  const mix = wanted.mix ?? before.mix;
  return mix && !running.includes(MIXED_IN) ? notRunning('mix', MIXED_IN, running) : { specs, mix };
}

function notRunning(field: string, text: string, running: readonly string[]): FieldFault {
  return new FieldFault(
    field,
    `expected sources that the daemon runs (${running.join(', ')}), got ${text}: add it to those of the daemon first`,
  );
}
