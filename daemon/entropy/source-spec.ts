// `--source=SPEC` as the operator writes it. Source of the forms: README, "Sources".
import { Fault } from '../../protocol/fault.js';

/** A parsed SPEC; `text` is its full form, with the default path filled in. */
export interface SourceSpec {
  readonly kind: 'random' | 'hwrng' | 'getrandom' | 'file';
  readonly text: string;
  /** Empty for getrandom. */
  readonly path: string;
}

const DEFAULT_PATHS: Readonly<Record<string, string>> = { random: '/dev/random', hwrng: '/dev/hwrng' };
/** Fixed names of sources that this version does not have yet. */
const LATER: readonly string[] = ['rdrand', 'rdseed', 'egd', 'jitter'];
const FORMS = 'random[:PATH], hwrng[:PATH] or getrandom';

/** Parses SPEC; a fault of scope `daemon` names what is allowed. `file:PATH` only with `allowTestSources`. */
export function parseSourceSpec(text: string, allowTestSources: boolean): SourceSpec | Fault {
  const colon = text.indexOf(':');
  const kind = colon < 0 ? text : text.slice(0, colon);
  const path = colon < 0 ? (DEFAULT_PATHS[kind] ?? '') : text.slice(colon + 1);
  if (LATER.includes(kind))
    return refuse(`expected ${FORMS}, got ${text}: this version has no source of that kind yet`);
  if (kind === 'getrandom' && colon < 0) return { kind, text, path: '' };
  if (kind === 'random' || kind === 'hwrng' || kind === 'file') {
    if (kind === 'file' && !allowTestSources) {
      return refuse(
        `expected ${FORMS}, got ${text}: a file is no entropy source; tests pass --allow-test-sources`,
      );
    }
    if (!path.startsWith('/')) return refuse(`expected an absolute path behind ${kind}:, got ${text}`);
    return { kind, text: `${kind}:${path}`, path };
  }
  return refuse(`expected ${FORMS}, got ${text}`);
}

function refuse(message: string): Fault {
  return new Fault('daemon', 'source_spec', message);
}
