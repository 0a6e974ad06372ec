// `--source=SPEC` as the operator writes it. Source of the forms: README, "Sources".
import { Fault } from '../../protocol/fault.js';
import { LEAST_MIN_ENTROPY } from './conditioning.js';
import { type EgdAddress, egdAddressText, parseEgdAddress } from './egd-address.js';

/** A parsed SPEC. */
export type SourceSpec = SourceKind & {
  /** The full form, with the default path filled in and without what follows a comma: one source has one text. */
  readonly text: string;
  /** Entropy that the operator credits each byte with, in bits: 0.25 to 8. With less than 8 they are conditioned. */
  readonly minEntropy: number;
};

type SourceKind =
  | { readonly kind: 'random' | 'hwrng' | 'file'; readonly path: string }
  | { readonly kind: 'getrandom' | 'rdrand' | 'rdseed' | 'jitter' }
  | { readonly kind: 'egd'; readonly address: EgdAddress };

const FORMS =
  'random[:PATH], hwrng[:PATH], getrandom, rdrand, rdseed, jitter, egd:unix:PATH or egd:tcp:HOST:PORT';
const MIN_ENTROPY = ',min-entropy=';
const MAX_MIN_ENTROPY = 8;
const DECIMAL = /^\d+(\.\d+)?$/;

/** Parses SPEC; a fault of scope `daemon` names what is allowed. `file:PATH` only with `allowTestSources`. */
export function parseSourceSpec(spec: string, allowTestSources: boolean): SourceSpec | Fault {
  // The last one: a path may contain commas.
  const comma = spec.lastIndexOf(MIN_ENTROPY);
  const minEntropy = comma < 0 ? MAX_MIN_ENTROPY : parseMinEntropy(spec.slice(comma + MIN_ENTROPY.length));
  if (minEntropy === undefined)
    return refuse(`min-entropy from ${LEAST_MIN_ENTROPY} to ${MAX_MIN_ENTROPY} bits for each byte`, spec);
  const text = comma < 0 ? spec : spec.slice(0, comma);
  const colon = text.indexOf(':');
  const kind = colon < 0 ? text : text.slice(0, colon);
  const rest = colon < 0 ? undefined : text.slice(colon + 1);
  switch (kind) {
    case 'random':
    case 'hwrng':
      return withPath(kind, rest ?? `/dev/${kind}`, minEntropy);
    case 'file':
      return allowTestSources
        ? withPath(kind, rest ?? '', minEntropy)
        : refuse(FORMS, `${spec}: a file is no entropy source; tests pass --allow-test-sources`);
    case 'getrandom':
    case 'rdrand':
    case 'rdseed':
    case 'jitter':
      return rest === undefined ? { kind, text, minEntropy } : refuse(`${kind} alone`, spec);
    case 'egd': {
      const address = parseEgdAddress(rest ?? '');
      if (typeof address === 'string') return refuse(address, spec);
      return { kind, address, text: `egd:${egdAddressText(address)}`, minEntropy };
    }
    default:
      return refuse(FORMS, spec);
  }
}

function withPath(kind: 'random' | 'hwrng' | 'file', path: string, minEntropy: number): SourceSpec | Fault {
  if (!path.startsWith('/') || path.includes('\0'))
    return refuse(`an absolute path behind ${kind}:`, `${kind}:${path}`);
  return { kind, path, text: `${kind}:${path}`, minEntropy };
}

function parseMinEntropy(text: string): number | undefined {
  const value = DECIMAL.test(text) ? Number(text) : NaN;
  return value >= LEAST_MIN_ENTROPY && value <= MAX_MIN_ENTROPY ? value : undefined;
}

function refuse(expected: string, got: string): Fault {
  return new Fault('daemon', 'source_spec', `expected ${expected}, got ${got}`);
}

/** The text with everything that was said of the source, as an operator writes it. */
export function fullSourceText({ text, minEntropy }: SourceSpec): string {
  return minEntropy === MAX_MIN_ENTROPY ? text : `${text}${MIN_ENTROPY}${minEntropy}`;
}
