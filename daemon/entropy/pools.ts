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

/** A pool and how many devices draw from it. */
interface Shared {
  readonly pool: EntropyPool;
  readonly key: string;
  users: number;
}

/** Makes each pool when it is first asked for, and closes it when nobody draws from it any more. */
export class Pools {
  private readonly sources: EntropySource[];
  private readonly onSwitch: SourceSwitch;
  private readonly all: Shared[] = [];

  /** Of all sources, which it closes; `onSwitch` as for {@link EntropyPool}. */
  constructor(sources: readonly EntropySource[], onSwitch: SourceSwitch) {
    this.sources = [...sources];
    this.onSwitch = onSwitch;
  }

  /** The pool of a choice, whose specs are all known; for one user more, until it says {@link release}. */
  choose({ specs, mix }: SourceChoice): EntropyPool {
    const key = JSON.stringify([mix, ...specs]);
    const known = this.all.find((shared) => shared.key === key);
    if (known !== undefined) {
      known.users++;
      return known.pool;
    }
    const sources = specs.map((spec) => this.find(spec));
    const mixedWith = mix ? this.find(MIXED_IN) : undefined;
    const pool = new EntropyPool({ sources, mixedWith }, this.onSwitch);
    this.all.push({ pool, key, users: 1 });
    return pool;
  }

  /** One user of `pool` draws from it no more: what waits in it is wiped with the last. */
  release(pool: EntropyPool): void {
    const at = this.all.findIndex((shared) => shared.pool === pool);
    const shared = this.all[at];
    if (shared === undefined) throw new Error('a pool that nobody has chosen');
    shared.users--;
    if (shared.users > 0) return;
    this.all.splice(at, 1);
    pool.close();
  }

  /** From now on it can be chosen. */
  addSource(source: EntropySource): void {
    this.sources.push(source);
  }

  /** Closes a source, whose pools nobody draws from any more. */
  removeSource(spec: string): void {
    const source = this.find(spec);
    this.sources.splice(this.sources.indexOf(source), 1);
    source.close();
  }

  private find(spec: string): EntropySource {
    const source = this.sources.find((other) => other.spec === spec);
    if (source === undefined) throw new Error(`no source ${spec}`);
    return source;
  }

  /** False when some pool could not be locked in RAM. */
  get locked(): boolean {
    return this.all.every(({ pool }) => pool.locked);
  }

  /** Refills between requests. */
  topUp(): void {
    for (let i = 0; i < this.all.length; i++) this.all[i]?.pool.topUp();
  }

  close(): void {
    for (const { pool } of this.all) pool.close();
    for (const source of this.sources) source.close();
  }
}
