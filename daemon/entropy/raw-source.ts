// Which raw source a SPEC stands for.
import { assertNever } from '../../protocol/assert-never.js';
import { openCpuSource } from './cpu-source.js';
import { EgdSource } from './egd-source.js';
import { openJitterSource } from './jitter-source.js';
import { DeviceSource, GetrandomSource, isKernelRandom, type RawSource, ReopenedSource } from './source.js';
import type { SourceSpec } from './source-spec.js';

/**
 * True for the kernel's own generator: its output is that of a cipher, whose statistics tell nothing of its entropy, so
 * only some of its blocks are scored.
 */
export function isKernelSource(spec: SourceSpec): boolean {
  return spec.kind === 'getrandom' || (spec.kind === 'random' && isKernelRandom(spec.path));
}

/** The source, not open yet. `onNews` is called when one that receives in its own time has bytes, or another state. */
export function makeRawSource(spec: SourceSpec, onNews: () => void): RawSource {
  switch (spec.kind) {
    case 'random':
    case 'hwrng':
    case 'file':
      return new DeviceSource(spec.path);
    case 'getrandom':
      return new GetrandomSource();
    case 'rdrand':
    case 'rdseed': {
      const { kind } = spec;
      return new ReopenedSource(() => openCpuSource(kind));
    }
    case 'jitter':
      return new ReopenedSource(() => openJitterSource());
    case 'egd':
      return new EgdSource(spec.address, onNews);
    default:
      return assertNever(spec);
  }
}
