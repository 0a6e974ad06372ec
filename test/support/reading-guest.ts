// A guest that waits for entropy, and one that keeps asking for it, as faults of sources are seen from inside.
import { setTimeout } from 'node:timers/promises';
import type { Test } from 'tap';
import { MemorySnapshot } from './untouched.js';
import { DATA_BASE, type MachineOptions, VirtualMachine } from './virtual-machine.js';

/** Requests that a guest of these tests has in its ring. */
const REQUESTS = 4;
/** While a ring waits for bytes, sources are asked again so often (starvation.ts). */
const RETRY_MS = 100;
/** Longest wait for something that a source was just given to cause. */
const PATIENCE_MS = 15_000;

/** A machine with pending requests of `length` bytes; nothing is completed, no byte of its memory is written. */
export function heldMachine(t: Test, path: string, length = 64): VirtualMachine {
  const vm = VirtualMachine.connect(path, { size: REQUESTS });
  t.teardown(() => vm.close());
  vm.offerAll(length);
  const snapshot = new MemorySnapshot(vm.ram);
  vm.frontend.setUp(vm.ram, vm.ring, { base: 0 });
  vm.frontend.kickRing();
  stillHeld(t, vm, snapshot);
  return vm;
}

/** What was offered before `snapshot` was taken is still pending, and not one byte was delivered. */
export function stillHeld(t: Test, vm: VirtualMachine, snapshot: MemorySnapshot): void {
  const before = vm.ring.usedIndex;
  vm.settle();
  t.equal(vm.ring.deviceUsedIndex, before, 'held');
  const { usedAddress, end } = vm.ring;
  // The used ring's event field and flags may be written, its index and elements may not.
  const usedRing = { address: usedAddress, length: Number(end - usedAddress) };
  t.equal(snapshot.firstChange([usedRing]), undefined, 'not one byte is delivered');
}

/** Waits for completions of what offerAll() has offered, and gives all delivered bytes in order. */
export function delivered(vm: VirtualMachine, count: number, length = 64): Buffer {
  const used = vm.frontend.waitUsed(vm.ring, count);
  return Buffer.concat(used.map((done) => vm.ram.view(DATA_BASE + BigInt(length * done.id), done.length)));
}

/** A guest that has requests pending all the time. Keeps every byte that it was ever given. */
export class ReadingGuest {
  readonly vm: VirtualMachine;
  private readonly length: number;
  /** What each request brought, in order. */
  readonly parts: Buffer[] = [];
  private total = 0;

  constructor(t: Pick<Test, 'teardown'>, path: string, options: MachineOptions & { length?: number } = {}) {
    this.length = options.length ?? 64;
    this.vm = VirtualMachine.connect(path, { size: REQUESTS, ...options });
    t.teardown(() => this.vm.close());
    this.vm.offerAll(this.length);
    this.vm.frontend.setUp(this.vm.ram, this.vm.ring, { base: 0 });
    this.vm.frontend.kickRing();
  }

  /** How many bytes it was given. */
  get count(): number {
    return this.total;
  }

  /** All that it was given, in order. */
  get bytes(): Buffer {
    return Buffer.concat(this.parts);
  }

  /** Takes what has come and asks for as much again; the bytes taken. Throws when a request was completed with nothing. */
  take(): number {
    const { vm, length } = this;
    let taken = 0;
    for (let used = vm.ring.take(); used !== undefined; used = vm.ring.take()) {
      if (used.length === 0) throw new Error('a request was completed with 0 bytes');
      const buffer = vm.ram.view(DATA_BASE + BigInt(length * used.id), used.length);
      this.parts.push(Buffer.from(buffer));
      taken += used.length;
      vm.ring.offer(used.id);
    }
    if (taken > 0) {
      vm.ring.publish();
      vm.frontend.kickRing();
    }
    this.total += taken;
    return taken;
  }

  /** Reads on until `done`; throws after 15 s. */
  async readUntil(done: () => boolean, what: string): Promise<void> {
    const endMs = performance.now() + PATIENCE_MS;
    for (;;) {
      this.take();
      if (done()) return;
      if (performance.now() > endMs) throw new Error(`expected ${what}, read ${this.total} bytes`);
      await setTimeout(2);
    }
  }

  /** Reads on until it was given `count` bytes in all. */
  async readTotal(count: number): Promise<void> {
    await this.readUntil(() => this.total >= count, `${count} bytes`);
  }

  /**
   * Reads all that the daemon can give now: until it has looked at its sources once more and nothing has come. So it has also
   * dropped what waited of a source that has failed a test.
   */
  async readAll(): Promise<void> {
    for (let quietSinceMs = performance.now(); performance.now() - quietSinceMs < 2 * RETRY_MS;) {
      await setTimeout(20);
      this.vm.settle();
      if (this.take() > 0) quietSinceMs = performance.now();
    }
    this.vm.settle();
  }
}
