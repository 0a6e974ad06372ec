// The binding of libjitterentropy, against a scripted C library of the same interface: what is passed, what comes back, and
// that a collector is freed exactly once. Leaves out the real library, which Debian 12 does not have.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { NativeMemory, openLibrary, PreparedCall } from '../../shared-memory/ffi.js';
import { loadJitterLibrary } from '../../shared-memory/jitterentropy.js';
import { temporaryFolder } from '../support/rng-daemon.js';

/** The source lies beside this file's source, not beside its compiled form. */
const SOURCE = fileURLToPath(new URL('../../../test/support/scripted-jitterentropy.c', import.meta.url));

const path = join(temporaryFolder(t), 'libscripted.so');
execFileSync('cc', ['-shared', '-fPIC', '-o', path, SOURCE]);
const control = openLibrary(path);
if (control === undefined) throw new Error('the library was just built');
const scriptCall = new PreparedCall('script', 'int', ['int', 'int', 'int'], control);
const collectors = new PreparedCall('collectors', 'int', [], control);
const flagsSeen = new PreparedCall('flags_seen', 'int', [], control);

function script(results: {
  readonly init?: number;
  readonly noMemory?: boolean;
  readonly read?: number;
}): void {
  scriptCall.setInt(0, results.init ?? 0);
  scriptCall.setInt(1, results.noMemory === true ? 1 : 0);
  scriptCall.setInt(2, results.read ?? 0);
  scriptCall.call();
}

function library(): NonNullable<ReturnType<typeof loadJitterLibrary>> {
  const loaded = loadJitterLibrary(path);
  if (loaded === undefined) throw new Error('the library was just built');
  return loaded;
}

t.test('what the library finds out at start comes back', (t) => {
  script({ init: 9 });
  t.equal(library().init(), 9);
  script({ noMemory: true });
  t.equal(library().init(), 0);
  t.equal(library().allocate(), false);
  t.equal(loadJitterLibrary('libno-such-library.so.3'), undefined);
  t.end();
});

t.test('reads into the place that is given, with the collector that the library has put there last', (t) => {
  const jitter = library();
  script({});
  t.ok(jitter.allocate());
  t.equal(flagsSeen.call(), 1 << 5, 'JENT_FORCE_FIPS: the library’s health tests count');
  const memory = new NativeMemory(64);
  for (const length of [1, 8, 33]) {
    memory.bytes.fill(0);
    t.equal(jitter.read(memory.address + 5, length), length);
    t.equal(
      memory.bytes.toString('latin1'),
      '\0'.repeat(5) + 'j'.repeat(length) + '\0'.repeat(64 - 5 - length),
    );
  }
  t.equal(collectors.call(), 1);
  jitter.free();
  t.equal(collectors.call(), 0);
  jitter.free();
  t.equal(collectors.call(), 0, 'freed once');
  t.end();
});

t.test('a failed read keeps the collector, except for the one that has freed it', (t) => {
  const memory = new NativeMemory(8);
  for (const code of [-2, -3, -4, -5, -8, -1]) {
    const jitter = library();
    script({ read: code });
    t.ok(jitter.allocate());
    t.equal(jitter.read(memory.address, 8), code);
    jitter.free();
    t.equal(collectors.call(), 0, `freed once after ${code}`);
  }
  t.end();
});
