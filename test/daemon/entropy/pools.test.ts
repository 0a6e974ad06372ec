// The pools of a thread: one for each choice of sources, shared by whoever chooses alike; no byte goes to two pools.
import assert from 'node:assert/strict';
import t from 'tap';
import { MIXED_IN, Pools } from '../../../daemon/entropy/pools.js';
import type { EntropyPool } from '../../../daemon/entropy/pool.js';
import type { EntropySource } from '../../../daemon/entropy/source.js';
import { viewOf } from '../../../shared-memory/ffi.js';

/** Gives words that are numbered from 1, with the number of the source in the highest byte. */
class NumberedSource implements EntropySource {
  readonly spec: string;
  readonly alarms = 0;
  closes = 0;
  reads = 0;
  dry = false;
  private readonly number: number;
  private words = 0;

  constructor(spec: string, number: number) {
    this.spec = spec;
    this.number = number;
  }

  read(address: number, length: number): number {
    this.reads++;
    if (this.dry) return 0;
    const bytes = viewOf(address, length);
    for (let at = 0; at < length; at += 4)
      bytes.writeUInt32LE(((this.number << 24) | ++this.words) >>> 0, at);
    return length;
  }

  close(): void {
    this.closes++;
  }
}

function threeSources() {
  const device = new NumberedSource('hwrng', 1);
  const kernel = new NumberedSource(MIXED_IN, 2);
  const cpu = new NumberedSource('rdrand', 3);
  const switches: string[] = [];
  const pools = new Pools([device, kernel, cpu], (to, from) => switches.push(`${from} -> ${to}`));
  return { device, kernel, cpu, switches, pools };
}

function takeWord(pool: EntropyPool): number {
  assert.ok(pool.ready() >= 4);
  const word = pool.memory.bytes.readUInt32LE(pool.offset);
  pool.take(4);
  return word;
}

t.test('the same choice is the same pool; another order, other sources or mixing is another', (t) => {
  const { pools } = threeSources();
  const choices = [
    { specs: ['hwrng'], mix: false },
    { specs: ['hwrng'], mix: true },
    { specs: ['hwrng', 'rdrand'], mix: false },
    { specs: ['rdrand', 'hwrng'], mix: false },
    { specs: ['hwrng', 'rdrand', MIXED_IN], mix: false },
  ];
  const made = choices.map((choice) => pools.choose(choice));
  t.equal(new Set(made).size, choices.length);
  for (const [i, choice] of choices.entries())
    t.equal(pools.choose({ ...choice, specs: [...choice.specs] }), made[i], JSON.stringify(choice));
  t.equal(typeof pools.locked, 'boolean');
  t.throws(() => pools.choose({ specs: ['none'], mix: false }), /^no source none/);
  pools.close();
  t.end();
});

t.test('no word of a source goes to two pools', (t) => {
  const { pools } = threeSources();
  const sharing = [
    pools.choose({ specs: ['hwrng'], mix: false }),
    pools.choose({ specs: ['hwrng', 'rdrand'], mix: false }),
    pools.choose({ specs: ['hwrng', MIXED_IN], mix: false }),
  ];
  const seen = new Set<number>();
  let last = [0, 0, 0];
  for (let round = 0; round < 5000; round++) {
    const words = sharing.map(takeWord);
    for (const [i, word] of words.entries()) {
      assert.ok(word > (last[i] ?? 0), 'in order');
      seen.add(word);
    }
    last = words;
    if (round % 7 === 0) pools.topUp();
  }
  t.equal(seen.size, 3 * 5000);
  pools.close();
  t.end();
});

t.test('each pool prefers its own first source; mixing takes the one that is named for it', (t) => {
  const { device, switches, pools } = threeSources();
  const deviceFirst = pools.choose({ specs: ['hwrng', 'rdrand'], mix: false });
  const cpuFirst = pools.choose({ specs: ['rdrand', 'hwrng'], mix: false });
  const mixed = pools.choose({ specs: ['hwrng', MIXED_IN], mix: true });
  t.equal(takeWord(deviceFirst) >>> 24, 1);
  t.equal(takeWord(cpuFirst) >>> 24, 3);
  t.equal(takeWord(mixed) >>> 24, 1 ^ 2);
  t.same(switches, []);
  device.dry = true;
  for (const pool of [deviceFirst, cpuFirst]) pool.take(pool.ready());
  t.equal(takeWord(deviceFirst) >>> 24, 3, 'the next one');
  t.equal(takeWord(cpuFirst) >>> 24, 3);
  t.same(switches, ['hwrng -> rdrand'], 'told by the pool that switched');
  pools.close();
  t.end();
});

t.test('topUp() refills every pool that was made, and no other; close() closes each source once', (t) => {
  const { device, kernel, cpu, pools } = threeSources();
  pools.topUp();
  t.equal(device.reads + kernel.reads + cpu.reads, 0, 'there is none yet');
  const first = pools.choose({ specs: ['hwrng'], mix: false });
  const second = pools.choose({ specs: ['rdrand'], mix: false });
  pools.topUp();
  t.same([device.reads, kernel.reads, cpu.reads], [1, 0, 1]);
  t.ok(first.ready() > 0 && second.ready() > 0);
  t.same([device.reads, cpu.reads], [1, 1], 'there was enough');
  pools.close();
  t.same([device.closes, kernel.closes, cpu.closes], [1, 1, 1]);
  t.end();
});
