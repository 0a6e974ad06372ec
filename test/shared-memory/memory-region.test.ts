// One region: windows of 16 MiB and their edges, copies of every kind and length, files that are refused, files that shrink.
import { randomFillSync } from 'node:crypto';
import { ftruncateSync, openSync } from 'node:fs';
import { constants } from 'node:os';
import t from 'tap';
import { Fault } from '../../protocol/fault.js';
import { openEventfd } from '../../shared-memory/eventfd.js';
import { asFd, closeFd } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import { openMemfd } from '../../shared-memory/memfd.js';
import { MEMORY_POLICIES, MemoryRegion, type RegionDescription } from '../../shared-memory/memory-region.js';
import { GuestRam } from '../support/guest-ram.js';
import { openPipe, openSocketPair, openTimerfd } from '../support/fd-kinds.js';

const MIB = 2 ** 20;
const WINDOW = 16 * MIB;
const AT = 0x10000n;

function region(ram: GuestRam, policy: (typeof MEMORY_POLICIES)[number] = 'guard'): MemoryRegion {
  const [description] = ram.regions;
  const [fd] = ram.passedFds();
  if (description === undefined || fd === undefined) throw new Error('no region');
  const mapped = MemoryRegion.map(description, fd, policy);
  if (mapped instanceof Fault) throw mapped;
  return mapped;
}

const source = new NativeMemory(8192);
randomFillSync(source.bytes);

for (const sealed of [true, false]) {
  t.test(`copies around the edges of windows, ${sealed ? 'direct' : 'guarded'}`, (t) => {
    for (const mmapOffset of [0, 4096]) {
      const ram = new GuestRam([{ guestPhysAddr: AT, bytes: 33 * MIB, sealed, mmapOffset }]);
      const mapped = region(ram);
      t.equal(mapped.direct, sealed);
      const wrong: string[] = [];
      for (const edge of [0, WINDOW, 2 * WINDOW, 33 * MIB].flatMap((at) => [at, at - mmapOffset])) {
        for (const before of [0, 1, 2, 3, 4, 5, 63, 64, 1023, 1024, 1100]) {
          for (const length of [1, 2, 3, 4, 5, 8, 63, 64, 65, 1023, 1024, 1025, 2048]) {
            for (const from of [0, 1, 4]) {
              const offset = edge - before;
              if (offset < 8 || offset + length + 8 > 33 * MIB) continue;
              const around = ram.view(AT + BigInt(offset - 8), length + 16).fill(0);
              const failed = mapped.copyIn(offset, source, from, length);
              const right = around.subarray(8, 8 + length).equals(source.bytes.subarray(from, from + length));
              const outside = Buffer.concat([around.subarray(0, 8), around.subarray(8 + length)]);
              if (failed !== 0 || !right || !outside.equals(Buffer.alloc(16))) {
                wrong.push(`${length} bytes at ${offset} from ${from}`);
              }
            }
          }
        }
      }
      t.same(wrong.slice(0, 5), []);
      mapped.unmap();
      ram.close();
    }
    t.end();
  });

  t.test(`the first and the last byte of a region, ${sealed ? 'direct' : 'guarded'}`, (t) => {
    const ram = new GuestRam([{ guestPhysAddr: AT, bytes: 5000, sealed }]);
    const mapped = region(ram);
    const target = new NativeMemory(8);
    for (const offset of [0, 4996]) {
      t.equal(mapped.copyIn(offset, source, 0, 4), 0);
      t.equal(mapped.copyOut(offset, target, 0, 4), 0);
      t.same(target.bytes.subarray(0, 4), source.bytes.subarray(0, 4));
    }
    mapped.unmap();
    ram.close();
    t.end();
  });
}

t.test('the offset of a guest-physical address, over all of 64 bits', (t) => {
  for (const start of [0n, 0xffff_fff0n, 2n ** 32n, 2n ** 53n + 1n, 2n ** 64n - 4096n]) {
    const ram = new GuestRam([{ guestPhysAddr: start, bytes: 4096, userAddr: AT }]);
    const mapped = region(ram);
    const offsetOf = (address: bigint) =>
      mapped.offsetOf(Number((address >> 32n) & 0xffff_ffffn), Number(address & 0xffff_ffffn));
    t.equal(offsetOf(start), 0);
    t.equal(offsetOf(start + 4095n), 4095);
    for (const by of [-1n, 4096n, 2n ** 32n, -(2n ** 32n), 2n ** 53n, 2n ** 63n]) {
      const address = BigInt.asUintN(64, start + by);
      t.equal(offsetOf(address), -1, `0x${address.toString(16)} from 0x${start.toString(16)}`);
    }
    mapped.unmap();
    ram.close();
  }
  t.end();
});

t.test('F12: a file that shrinks: guarded copies fail with EFAULT, before and behind the cut', (t) => {
  const ram = new GuestRam([{ guestPhysAddr: AT, bytes: 4 * 4096, sealed: false }]);
  const mapped = region(ram);
  const target = new NativeMemory(8192);
  ram.truncate(0, 4096);
  t.equal(mapped.copyIn(0, source, 0, 4096), 0, 'what is left is served');
  const EFAULT = -constants.errno.EFAULT;
  t.equal(mapped.copyIn(4096, source, 0, 64), EFAULT);
  t.equal(mapped.copyIn(4000, source, 0, 200), EFAULT, 'a part is not enough');
  t.equal(mapped.copyOut(4096, target, 0, 64), EFAULT);
  t.equal(mapped.copyOut(4000, target, 0, 200), EFAULT);
  mapped.unmap();
  ram.close();
  t.end();
});

t.test('row 57: what the policy makes of memory that is sealed or not', (t) => {
  const expected = {
    'guard sealed': 'direct',
    'guard open': 'guarded',
    'require-sealed sealed': 'direct',
    'require-sealed open': 'memory_not_sealed',
    'trust sealed': 'direct',
    'trust open': 'direct',
  };
  const got: Record<string, string> = {};
  for (const policy of MEMORY_POLICIES) {
    for (const sealed of [true, false]) {
      const ram = new GuestRam([{ guestPhysAddr: AT, bytes: 4096, sealed }]);
      const [description] = ram.regions;
      const mapped = description && MemoryRegion.map(description, ram.passedFds()[0] ?? asFd(-1), policy);
      const outcome = mapped instanceof Fault ? mapped.code : mapped?.direct === true ? 'direct' : 'guarded';
      got[`${policy} ${sealed ? 'sealed' : 'open'}`] = outcome;
      if (mapped instanceof MemoryRegion) mapped.unmap();
      ram.close();
    }
  }
  t.same(got, expected);
  t.end();
});

const GOOD: RegionDescription = { guestPhysAddr: AT, size: 8192n, userAddr: AT, mmapOffset: 0n };
const U64_MAX = 2n ** 64n - 1n;
/** Rows 48, 49 and 53: a region of a memfd of 12,288 bytes, and the code of its refusal. */
const DESCRIPTIONS: readonly (readonly [Partial<RegionDescription>, string | undefined])[] = [
  [{}, undefined],
  [{ size: 0n }, 'memory_region_empty'],
  [{ size: 12_288n }, undefined],
  [{ size: 12_289n }, 'memory_file_short'],
  [{ mmapOffset: 4096n }, undefined],
  [{ mmapOffset: 4097n }, 'memory_file_short'],
  [{ mmapOffset: 4095n }, undefined],
  [{ size: 1n << 40n }, 'memory_file_short'],
  [{ size: U64_MAX }, 'memory_region_wraps'],
  [{ guestPhysAddr: U64_MAX - 8191n }, undefined],
  [{ guestPhysAddr: U64_MAX - 8190n }, 'memory_region_wraps'],
  [{ userAddr: U64_MAX - 8190n }, 'memory_region_wraps'],
  [{ mmapOffset: U64_MAX - 8190n }, 'memory_region_wraps'],
  [{ mmapOffset: 2n ** 53n + 1n }, 'memory_file_short'],
];

t.test('rows 48, 49, 53: descriptions that are taken and refused', (t) => {
  for (const [change, code] of DESCRIPTIONS) {
    const fd = openMemfd('rngd', 12_288);
    const mapped = MemoryRegion.map({ ...GOOD, ...change }, fd, 'guard');
    const title = Object.entries(change).map(([name, value]) => `${name} 0x${value.toString(16)}`);
    t.equal(mapped instanceof Fault ? mapped.code : undefined, code, title.join() || 'as it is');
    if (mapped instanceof MemoryRegion) mapped.unmap();
    else closeFd(fd);
  }
  t.end();
});

t.test('row 53: an offset that is not page-aligned maps the right bytes', (t) => {
  const ram = new GuestRam([{ guestPhysAddr: AT, bytes: 12_288 }]);
  const [fd] = ram.passedFds();
  if (fd === undefined) throw new Error('no memory');
  const mapped = MemoryRegion.map({ ...GOOD, size: 4096n, mmapOffset: 4100n }, fd, 'guard');
  if (mapped instanceof Fault) throw mapped;
  mapped.copyIn(0, source, 0, 64);
  t.same(ram.view(AT + 4100n, 64), source.bytes.subarray(0, 64));
  mapped.unmap();
  ram.close();
  t.end();
});

t.test('row 55: what is no memory file is refused, and says what it is', (t) => {
  const [socket, peer] = openSocketPair();
  const [readEnd, writeEnd] = openPipe();
  const kinds = [
    [socket, 'socket'],
    [readEnd, 'pipe'],
    [openTimerfd(), 'other'],
    [openEventfd(), 'eventfd'],
    [asFd(openSync('/', 'r')), 'directory'],
    [asFd(openSync('/dev/zero', 'r+')), 'character device'],
  ] as const;
  for (const [fd, kind] of kinds) {
    const mapped = MemoryRegion.map(GOOD, fd, 'guard');
    t.equal(mapped instanceof Fault ? mapped.code : 'mapped', 'memory_fd_kind', kind);
    if (mapped instanceof Fault) t.match(mapped.message, `got a ${kind}`);
    closeFd(fd);
  }
  closeFd(peer);
  closeFd(writeEnd);
  t.end();
});

t.test('a file that grows later is not a larger region', (t) => {
  const fd = openMemfd('rngd', 4096, { sealed: false });
  const mapped = MemoryRegion.map({ ...GOOD, size: 4096n }, fd, 'guard');
  if (mapped instanceof Fault) throw mapped;
  ftruncateSync(fd, 65536);
  t.equal(mapped.offsetOf(0, Number(AT) + 4096), -1);
  mapped.unmap();
  t.end();
});
