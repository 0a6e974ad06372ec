// RDRAND and RDSEED as sources: the instruction itself where this CPU has it, and one that lies, since no real one does so
// on demand. The lying instruction is a fake: a function in the place of the native call.
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import t from 'tap';
import { type CpuRandomMachine, CpuSource, openCpuSource } from '../../../daemon/entropy/cpu-source.js';
import { Fault } from '../../../protocol/fault.js';
import { bindCpuRandom, type CpuInstruction } from '../../../shared-memory/cpu-random.js';
import { NativeMemory, viewOf } from '../../../shared-memory/ffi.js';

const INSTRUCTIONS: readonly CpuInstruction[] = ['rdrand', 'rdseed'];
const EIO = -constants.errno.EIO;
const NOTHING = undefined;
const ALL_ONES = 2n ** 64n - 1n;

/** Words that a fake instruction gives one after the other, for ever the last of them; undefined is carry 0. */
function lyingSource(script: readonly (bigint | undefined)[]): {
  readonly source: CpuSource;
  /** How many words were asked of the instruction. */
  readonly asked: () => number;
} {
  let asked = 0;
  const source = new CpuSource('rdrand', (address, length) => {
    const words = viewOf(address, length);
    let stored = 0;
    for (; stored < length; stored += 8) {
      const word = script[Math.min(asked++, script.length - 1)];
      if (word === undefined) break;
      words.writeBigUInt64LE(word, stored);
    }
    return stored;
  });
  return { source, asked: () => asked };
}

/** What one read of `length` bytes gives: the result, and the words it stored. */
function readWords(source: CpuSource, length: number): { readonly got: number; readonly words: bigint[] } {
  const memory = new NativeMemory(length + 8);
  const got = source.read(memory.address, length);
  t.equal(memory.bytes.readBigUInt64LE(length), 0n, 'nothing is stored behind the end');
  const count = Math.max(0, Math.floor(got / 8));
  return { got, words: Array.from({ length: count }, (_, i) => memory.bytes.readBigUInt64LE(8 * i)) };
}

t.test('this CPU’s instructions give all that is asked for, and never the same twice', (t) => {
  const memory = new NativeMemory(8192 + 16);
  for (const instruction of INSTRUCTIONS) {
    const source = openCpuSource(instruction);
    if (source instanceof Fault) {
      // Not a skip: a machine without it must say so, and this machine's flags prove it right.
      t.match(source, { code: 'source_missing', scope: 'daemon' });
      const exported = bindCpuRandom(instruction) !== undefined;
      t.notOk(exported && new RegExp(`\\b${instruction}\\b`).test(readFileSync('/proc/cpuinfo', 'utf8')));
      continue;
    }
    const seen = new Set<string>();
    let windows = 0;
    for (const length of [1, 7, 8, 64, 2560, 4096, 8192]) {
      memory.bytes.fill(0);
      const got = source.read(memory.address + 8, length);
      t.equal(got, Math.min(length, 4096), `${length} bytes of ${instruction}`);
      const outside = Buffer.concat([memory.bytes.subarray(0, 8), memory.bytes.subarray(8 + got)]);
      t.ok(
        outside.every((byte) => byte === 0),
        'nothing around them',
      );
      for (let at = 0; at + 8 <= got; at += 8, windows++)
        seen.add(memory.bytes.toString('hex', 8 + at, 16 + at));
    }
    t.equal(seen.size, windows);
    t.equal(source.spec, instruction);
    source.close();
  }
  t.end();
});

t.test('row 147: an instruction that says success and gives always the same fails after ten tries', (t) => {
  for (const [word, asked] of [
    [ALL_ONES, 10 * 5],
    [0n, 10 * 5],
    // The first of a repeated value is believed, for comparison only: four words follow it, ten times.
    [42n, 5 + 9 * 4],
  ] as const) {
    const lying = lyingSource([word]);
    t.same(readWords(lying.source, 32), { got: EIO, words: [] }, `always ${word}`);
    t.equal(lying.asked(), asked);
    t.same(readWords(lying.source, 32), { got: EIO, words: [] }, 'and again');
  }
  t.end();
});

t.test('an instruction that has nothing is asked ten times for each word, no more', (t) => {
  const silent = lyingSource([NOTHING]);
  t.same(readWords(silent.source, 64), { got: EIO, words: [] });
  t.equal(silent.asked(), 10);
  const nine = Array.from({ length: 9 }, () => NOTHING);
  const late = lyingSource([...nine, 1n, ...nine, 2n, ...nine, 3n]);
  t.same(readWords(late.source, 16), { got: 16, words: [2n, 3n] }, 'nine failures before each word');
  t.equal(late.asked(), 30);
  t.end();
});

t.test('doubtful words among good ones are left out, the good ones are given in order', (t) => {
  // Five words are asked for, then the three that are missing, until they are good.
  const script = [1n, 2n, ALL_ONES, 9n, 9n, 0n, 9n, 9n, 2n, 9n, 9n, NOTHING, 3n, 4n, 5n];
  t.same(readWords(lyingSource(script).source, 32), { got: 32, words: [2n, 3n, 4n, 5n] });
  const halves = [1n, 0xffff_ffffn, 0xffff_ffff_0000_0000n, 5n << 32n, 5n];
  t.same(
    readWords(lyingSource(halves).source, 32).words,
    halves.slice(1),
    'half a word of 0 or ~0 is no doubt',
  );
  t.end();
});

t.test('an instruction that stops in the middle gives what it has, then its failure', (t) => {
  const { source } = lyingSource([1n, 2n, 3n, NOTHING]);
  t.same(readWords(source, 64), { got: 16, words: [2n, 3n] });
  t.same(readWords(source, 64), { got: EIO, words: [] });
  t.equal(readWords(source, 0).got, 0);
  t.end();
});

t.test('what is missing is a fault that names the fix', (t) => {
  const machine = (changes: Partial<CpuRandomMachine>): CpuRandomMachine => ({
    cpuInfo: () => 'processor\t: 0\nflags\t\t: fpu rdrand rdseed sse2\nbugs\t\t: none\n',
    bind: () => () => 0,
    ...changes,
  });
  for (const instruction of INSTRUCTIONS) {
    const source = openCpuSource(instruction, machine({}));
    t.type(source, CpuSource);
    for (const cpuInfo of ['', 'flags\t: fpu sse2\n', 'flags\t: xrdrand rdseeds\nbugs\t: rdrand rdseed\n']) {
      const old = openCpuSource(instruction, machine({ cpuInfo: () => cpuInfo }));
      t.match(old, { code: 'source_missing', scope: 'daemon', message: /cpuinfo.*another --source/ });
    }
    const dynamic = openCpuSource(instruction, machine({ bind: () => undefined }));
    t.match(dynamic, { code: 'source_missing', message: /OPENSSL_ia32_rd.*nodejs\.org/ });
  }
  t.end();
});
