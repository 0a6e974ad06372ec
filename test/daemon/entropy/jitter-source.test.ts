// The source `jitter` with a library that fails: a fake, since the real one does so only on a broken CPU.
import { constants } from 'node:os';
import t from 'tap';
import type { JitterSource } from '../../../daemon/entropy/jitter-source.js';
import { openJitterSource } from '../../../daemon/entropy/jitter-source.js';
import { Fault } from '../../../protocol/fault.js';
import { NativeMemory } from '../../../shared-memory/ffi.js';
import type { JitterLibrary } from '../../../shared-memory/jitterentropy.js';

const EIO = -constants.errno.EIO;

/** A library that works, but for `changes`; tells how it was called. */
function fakeLibrary(changes: Partial<JitterLibrary> = {}): JitterLibrary & { readonly calls: string[] } {
  const calls: string[] = [];
  return {
    calls,
    init: () => 0,
    allocate: () => true,
    read: (_address, length) => {
      calls.push(`read ${length}`);
      return length;
    },
    free: () => void calls.push('free'),
    ...changes,
  };
}

function opened(library: JitterLibrary): JitterSource {
  const source = openJitterSource(() => library);
  if (source instanceof Fault) throw source;
  return source;
}

t.test('what cannot be opened says why, and what to do', (t) => {
  const cases = [
    [undefined, 'source_missing', /libjitterentropy\.so\.3.*apt install libjitterentropy3/],
    [fakeLibrary({ init: () => 2 }), 'source_open', /too coarse \(code 2\).*another --source/],
    [fakeLibrary({ init: () => 13 }), 'source_open', /divisor/],
    [fakeLibrary({ init: () => 99 }), 'source_open', /unknown code \(code 99\)/],
    [fakeLibrary({ allocate: () => false }), 'source_open', /no collector/],
  ] as const;
  for (const [library, code, message] of cases) {
    t.match(
      openJitterSource(() => library),
      { code, message, scope: 'daemon' },
    );
  }
  t.end();
});

t.test('a read takes what the library gives, 256 bytes at most, so that no read takes long', (t) => {
  const memory = new NativeMemory(4096);
  const library = fakeLibrary();
  const source = opened(library);
  t.equal(source.spec, 'jitter');
  for (const [length, got] of [
    [0, 0],
    [1, 1],
    [256, 256],
    [4096, 256],
  ] as const)
    t.equal(source.read(memory.address, length), got);
  source.close();
  t.same(library.calls, ['read 1', 'read 256', 'read 256', 'free']);
  t.end();
});

t.test('a failure has the library’s meaning, and stays: the collector is not used again', (t) => {
  const memory = new NativeMemory(8);
  for (const [code, meaning] of [
    [-1, /start-up test/],
    [-2, /repetition count/],
    [-3, /adaptive proportion/],
    [-4, /timer thread/],
    [-5, /lag predictor/],
    [-6, /repetition count.*for good/],
    [-7, /adaptive proportion.*for good/],
    [-8, /lag predictor.*for good/],
    [-77, /gave -77/],
    [0, /gave 0/],
  ] as const) {
    let reads = 0;
    const source = opened(
      fakeLibrary({
        read: () => {
          reads++;
          return code;
        },
      }),
    );
    t.equal(source.failure, undefined);
    t.equal(source.read(memory.address, 8), EIO);
    t.match(source.failure, meaning, `code ${code}`);
    t.equal(source.read(memory.address, 8), EIO);
    t.equal(reads, 1);
    source.close();
  }
  t.end();
});
