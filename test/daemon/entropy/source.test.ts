// Sources that never wait, and how the kernel's own random device is told from others; rings that wait for bytes.
import t from 'tap';
import { Starvation } from '../../../daemon/entropy/starvation.js';
import { GetrandomSource, isKernelRandom, KernelRandomSource } from '../../../daemon/entropy/source.js';
import { Timers } from '../../../daemon/timers.js';
import { NativeMemory } from '../../../shared-memory/ffi.js';
import { TestClock } from '../../support/test-clock.js';

t.test('the kernel’s random device is known by its number, not by its name', (t) => {
  t.equal(isKernelRandom('/dev/random'), true);
  t.equal(isKernelRandom('/dev/urandom'), true);
  for (const path of ['/dev/zero', '/dev/null', '/dev/full', '/etc/passwd', '/']) {
    t.equal(isKernelRandom(path), false, path);
  }
  t.throws(() => isKernelRandom('/dev/no-such-device'), { code: 'ENOENT' });
  t.end();
});

t.test('both give all that is asked for, in its place, and never the same twice', (t) => {
  const memory = new NativeMemory(4096 + 16);
  for (const source of [new KernelRandomSource('/dev/random'), new GetrandomSource()]) {
    const seen = new Set<string>();
    for (const length of [1, 7, 64, 256, 257, 4096]) {
      memory.bytes.fill(0);
      t.equal(source.read(memory.address + 8, length), length, `${length} bytes of ${source.spec}`);
      const outside = Buffer.concat([memory.bytes.subarray(0, 8), memory.bytes.subarray(8 + length)]);
      t.ok(
        outside.every((byte) => byte === 0),
        'nothing around them',
      );
      for (let at = 0; at + 16 <= length; at += 16) seen.add(memory.bytes.toString('hex', 8 + at, 24 + at));
    }
    t.equal(seen.size, (64 + 256 + 256 + 4096) / 16, 'no 16 bytes come twice');
    source.close();
  }
  t.equal(new KernelRandomSource('/dev/urandom').spec, 'random:/dev/urandom');
  t.throws(() => new KernelRandomSource('/dev/no-such-device'), { code: 'ENOENT' });
  t.end();
});

t.test('a source that has failed gives its error', (t) => {
  const closed = new KernelRandomSource('/dev/random');
  closed.close();
  t.ok(closed.read(new NativeMemory(8).address, 8) < 0);
  t.end();
});

t.test(
  'rings that wait for bytes: each is resumed once, by a wake-up or after 100 ms; one that stops is not',
  (t) => {
    const clock = new TestClock(0);
    const timers = new Timers(clock);
    const starvation = new Starvation(timers);
    const resumed: string[] = [];
    const rings = ['a', 'b', 'c'].map((name) => ({ resume: () => void resumed.push(name) }));
    const [a, b, c] = rings;
    if (a === undefined || b === undefined || c === undefined) throw new Error('three rings');
    t.equal(timers.timeoutMs(), -1, 'nothing is armed while no one waits');
    for (const ring of [a, b, a, c]) starvation.wait(ring);
    starvation.forget(b);
    t.equal(timers.timeoutMs(), 100);
    starvation.resumeAll();
    t.same(resumed.splice(0), ['a', 'c']);
    t.equal(timers.timeoutMs(), -1);
    starvation.resumeAll();
    t.same(resumed, []);
    starvation.wait({
      resume: () => {
        resumed.push('again');
        if (resumed.length < 3) starvation.wait(a);
      },
    });
    clock.advance(100);
    timers.run();
    t.same(resumed.splice(0), ['again']);
    clock.advance(100);
    timers.run();
    t.same(resumed, ['a'], 'one that waits again while it is resumed is not lost');
    t.end();
  },
);
