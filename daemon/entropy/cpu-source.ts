// The CPU's random instructions as a source, `rdrand` and `rdseed`: raw, what they give is tested behind this file.
//
// An instruction can say that it has nothing, and some have lied: after suspend certain AMD CPUs report success with all
// bits set. So every word is looked at before it is handed on. Sources: Intel SDM volume 1 §7.3.17; bad-input row 147.
import { readFileSync } from 'node:fs';
import { Fault } from '../../protocol/fault.js';
import { bindCpuRandom, type CpuInstruction, type CpuRandomCall } from '../../shared-memory/cpu-random.js';
import { Errno } from '../../shared-memory/errno.js';
import * as libc from '../../shared-memory/libc.js';
import { Mapping } from '../../shared-memory/mapping.js';
import type { OpenSource } from './source.js';

const WORD_BYTES = 8;
/** Intel's advice; each is up to eight tries of the instruction itself inside OpenSSL's function. */
const TRIES_PER_WORD = 10;
/** Read at a time; one word more goes in front, to compare the first with. Ours. */
const BATCH_BYTES = 4096;

/** What the machine has; tests say otherwise. */
export interface CpuRandomMachine {
  /** The text of /proc/cpuinfo. */
  readonly cpuInfo: () => string;
  readonly bind: (instruction: CpuInstruction) => CpuRandomCall | undefined;
}

const THIS_MACHINE: CpuRandomMachine = {
  cpuInfo: () => readFileSync('/proc/cpuinfo', 'utf8'),
  bind: bindCpuRandom,
};

/** Opens the instruction as a source; a fault of scope `daemon` says what is missing and what to do. */
export function openCpuSource(
  instruction: CpuInstruction,
  machine: CpuRandomMachine = THIS_MACHINE,
): CpuSource | Fault {
  if (!hasCpuFlag(machine.cpuInfo(), instruction)) {
    return missing(
      `expected a CPU with ${instruction}, got one whose flags in /proc/cpuinfo do not name it: use another --source, ` +
        'or give this machine a CPU model that has it',
    );
  }
  const call = machine.bind(instruction);
  if (call === undefined) {
    return missing(
      `expected a node that exports OPENSSL_ia32_${instruction}_bytes, got ${process.execPath}, which does not: ` +
        'use a node from nodejs.org or NodeSource, which have OpenSSL built in, or another --source',
    );
  }
  return new CpuSource(instruction, call);
}

/** The flags are one line of words for each CPU; all CPUs of a machine have the same. */
function hasCpuFlag(cpuInfo: string, flag: string): boolean {
  const flags = /^flags\s*:(.*)$/m.exec(cpuInfo)?.[1] ?? '';
  return flags.split(' ').includes(flag);
}

function missing(message: string): Fault {
  return new Fault('daemon', 'source_missing', message);
}

/** Words of one instruction, looked at in locked memory of its own before they are copied out. */
export class CpuSource implements OpenSource {
  readonly spec: CpuInstruction;
  private readonly call: CpuRandomCall;
  private readonly mapping: Mapping;
  /** The words as pairs of 32 bits; the first is only compared with. */
  private readonly words: Int32Array;

  constructor(instruction: CpuInstruction, call: CpuRandomCall) {
    this.spec = instruction;
    this.call = call;
    this.mapping = Mapping.forSecrets(WORD_BYTES + BATCH_BYTES).mapping;
    const bytes = this.mapping.view(0, WORD_BYTES + BATCH_BYTES);
    this.words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  }

  /**
   * Stores up to `length` bytes. Fewer when a later word fails ten times; EIO when no word could be had, which is what
   * the next read then gives if the instruction has failed for good.
   */
  read(address: number, length: number): number {
    if (length === 0) return 0;
    const wanted = Math.min(length, BATCH_BYTES);
    const got = Math.min(wanted, this.fill(Math.ceil(wanted / WORD_BYTES)) * WORD_BYTES);
    // SAFETY: `got` bytes lie in the mapping behind its first word, and the caller has `length` at `address`.
    if (got > 0) libc.memcpy(address, this.mapping.address + WORD_BYTES, got);
    this.words.fill(0);
    return got > 0 ? got : -Errno.EIO;
  }

  /** Fills the word to compare with and `count` more; gives how many good ones follow the first, -1 without that one. */
  private fill(count: number): number {
    let good = 0;
    for (let tries = 0; tries < TRIES_PER_WORD && good <= count; tries++) {
      // SAFETY: the rest of the mapping from word `good` on is as long as is asked for.
      const stored = this.call(this.mapping.address + good * WORD_BYTES, (count + 1 - good) * WORD_BYTES);
      const believed = this.firstDoubtful(good, good + Math.floor(stored / WORD_BYTES));
      // This call was the first try of the word that it stopped at.
      if (believed > good) tries = 0;
      good = believed;
    }
    return good - 1;
  }

  /** The first word in [from, end) that is 0, all ones, or the same as the one before it; `end` when there is none. */
  private firstDoubtful(from: number, end: number): number {
    const { words } = this;
    for (let word = from; word < end; word++) {
      const low = words[2 * word] ?? 0;
      const high = words[2 * word + 1] ?? 0;
      if (low === high && (low === 0 || low === -1)) return word;
      if (word > 0 && low === words[2 * word - 2] && high === words[2 * word - 1]) return word;
    }
    return end;
  }

  /** Wipes what there is and gives the memory back. */
  close(): void {
    this.words.fill(0);
    this.mapping.unmap();
  }
}
