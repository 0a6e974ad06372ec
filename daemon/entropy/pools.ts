// The pools of one thread: devices whose bytes come from the same sources in the same order draw from the same pool.
import { EntropyPool, type SourceSwitch } from './pool.js';
import type { EntropySource } from './source.js';

/** The source whose bytes are mixed in; it is among the sources where a device asks for that. */
export const MIXED_IN = 'getrandom';

/** Which sources a device draws from. */
export interface SourceChoice {
  /** Specs in order of preference, each once. */
  readonly specs: readonly string[];
  /** Mix the kernel's bytes into theirs. */
  readonly mix: boolean;
}

/** Makes each pool when it is first asked for; they last as long as the thread. */
export class Pools {
  private readonly sources: readonly EntropySource[];
  private readonly onSwitch: SourceSwitch;
  private readonly byChoice = new Map<string, EntropyPool>();
  private readonly all: EntropyPool[] = [];

  /** Of all sources, which it closes; `onSwitch` as for {@link EntropyPool}. */
  constructor(sources: readonly EntropySource[], onSwitch: SourceSwitch) {
    this.sources = sources;
    this.onSwitch = onSwitch;
  }

  /** The pool of a choice, whose specs are all known. */
  choose({ specs, mix }: SourceChoice): EntropyPool {
    const key = JSON.stringify([mix, ...specs]);
    const known = this.byChoice.get(key);
    if (known !== undefined) return known;
    const sources = specs.map((spec) => this.find(spec));
    const mixedWith = mix ? this.find(MIXED_IN) : undefined;
    const pool = new EntropyPool({ sources, mixedWith }, this.onSwitch);
    this.byChoice.set(key, pool);
    this.all.push(pool);
    return pool;
  }

  private find(spec: string): EntropySource {
    const source = this.sources.find((other) => other.spec === spec);
    if (source === undefined) throw new Error(`no source ${spec}`);
    return source;
  }

  /** False when some pool could not be locked in RAM. */
  get locked(): boolean {
    return this.all.every((pool) => pool.locked);
  }

  /** Refills between requests. */
  topUp(): void {
    for (let i = 0; i < this.all.length; i++) this.all[i]?.topUp();
  }

  close(): void {
    for (const pool of this.all) pool.close();
    for (const source of this.sources) source.close();
  }
}
