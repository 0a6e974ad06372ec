// Raw sources behind a file or a system call, and how the kernel's own random device is told from others; rings that wait for bytes.
import { constants } from 'node:os';
import t from 'tap';
import { Starvation } from '../../../daemon/entropy/starvation.js';
import {
  DeviceSource,
  GetrandomSource,
  isKernelRandom,
  ReopenedSource,
} from '../../../daemon/entropy/source.js';
import { Timers } from '../../../daemon/timers.js';
import { Fault } from '../../../protocol/fault.js';
import { NativeMemory } from '../../../shared-memory/ffi.js';
import { TestClock } from '../../support/test-clock.js';

t.test('the kernel’s random device is known by its number, not by its name', (t) => {
  t.equal(isKernelRandom('/dev/random'), true);
  t.equal(isKernelRandom('/dev/urandom'), true);
  for (const path of ['/dev/zero', '/dev/null', '/dev/full', '/etc/passwd', '/', '/dev/no-such-device']) {
    t.equal(isKernelRandom(path), false, path);
  }
  t.end();
});

t.test('both give all that is asked for, in its place, and never the same twice', (t) => {
  const memory = new NativeMemory(4096 + 16);
  for (const source of [new DeviceSource('/dev/random'), new GetrandomSource()]) {
    t.equal(source.open(), undefined);
    const seen = new Set<string>();
    for (const length of [1, 7, 64, 256, 257, 4096]) {
      memory.bytes.fill(0);
      t.equal(source.read(memory.address + 8, length), length, `${length} bytes`);
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
  t.end();
});

t.test('a device that is not there, has come to its end, is let go and opened again', (t) => {
  const { address } = new NativeMemory(8);
  t.match(new DeviceSource('/dev/no-such-device').open(), /ENOENT/);
  const end = new DeviceSource('/dev/null');
  t.equal(end.open(), undefined);
  t.equal(end.read(address, 8), -constants.errno.ENODATA);
  end.letGo();
  t.equal(end.read(address, 8), -constants.errno.EBADF);
  t.equal(end.open(), undefined);
  t.equal(end.read(address, 8), -constants.errno.ENODATA);
  end.close();
  t.end();
});

t.test('a source that is made anew each time it is opened', (t) => {
  const log: string[] = [];
  const outcomes = [new Fault('daemon', 'source_missing', 'none yet'), undefined, undefined];
  const source = new ReopenedSource(() => {
    const outcome = outcomes.shift();
    log.push('made');
    return outcome ?? { read: () => 8, close: () => void log.push('closed'), failure: 'why' };
  });
  t.equal(source.open(), 'none yet');
  t.equal(source.read(0, 8), 0, 'nothing from what is not open');
  t.equal(source.open(), undefined);
  t.equal(source.read(0, 8), 8);
  t.equal(source.failure, 'why');
  source.letGo();
  t.equal(source.open(), undefined);
  source.close();
  source.close();
  t.same(log, ['made', 'made', 'closed', 'made', 'closed']);
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
    for (const ring of [a, b, a, c]) starvation.wait(ring, 'unserved');
    starvation.forget(b);
    t.equal(timers.timeoutMs(), 100);
    starvation.resumeAll();
    t.same(resumed.splice(0), ['a', 'c']);
    t.equal(timers.timeoutMs(), -1);
    starvation.resumeAll();
    t.same(resumed, []);
    const again = () => {
      resumed.push('again');
      if (resumed.length < 3) starvation.wait(a, 'unserved');
    };
    starvation.wait({ resume: again }, 'unserved');
    clock.advance(100);
    timers.run();
    t.same(resumed.splice(0), ['again']);
    clock.advance(100);
    timers.run();
    t.same(resumed, ['a'], 'one that waits again while it is resumed is not lost');
    t.end();
  },
);

t.test('rings that wait for bytes: who was given some has its turn after those who were not', (t) => {
  const starvation = new Starvation(new Timers(new TestClock(0)));
  const resumed: string[] = [];
  const rings = ['a', 'b', 'c', 'd'].map((name) => ({ name, resume: () => void resumed.push(name) }));
  /** All wait; there are bytes for the first that is asked, again and again. */
  const rounds = (count: number): string => {
    let served = '';
    for (let round = 0; round < count; round++) {
      resumed.length = 0;
      starvation.resumeAll();
      served += resumed[0] ?? '';
      for (const name of [...resumed]) {
        const ring = rings.find((other) => other.name === name);
        if (ring !== undefined) starvation.wait(ring, name === resumed[0] ? 'served' : 'unserved');
      }
    }
    return served;
  };
  for (const ring of rings) starvation.wait(ring, 'unserved');
  t.equal(rounds(8), 'abcdabcd');
  const [a, , c] = rings;
  if (a === undefined || c === undefined) throw new Error('four rings');
  starvation.forget(a);
  starvation.forget(a);
  t.equal(rounds(6), 'bcdbcd');
  starvation.wait(a, 'served');
  starvation.forget(c);
  t.equal(rounds(6), 'bdabda');
  t.end();
});
