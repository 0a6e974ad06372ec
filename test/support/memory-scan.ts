// Looks into the memory of another process, as root can: which mappings it has, and where in them certain bytes lie.
// Source: proc(5), /proc/PID/smaps and /proc/PID/mem.
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

/** A mapping as the kernel lists it. */
export interface ListedMapping {
  readonly start: number;
  readonly end: number;
  readonly permissions: string;
  /** File, [heap], [stack], or empty. */
  readonly name: string;
  /** Bytes in RAM or swapped out; the rest was never touched. */
  readonly usedBytes: number;
  /** Two letters each: `lo` locked, `dd` not in core files, `wf` wiped in a forked child. */
  readonly flags: readonly string[];
}

const CHUNK_BYTES = 1 << 20;
/** What is looked for are pieces of so many bytes: beyond chance, and shorter than any request. */
const PIECE_BYTES = 8;
/** Pieces are looked for at each multiple of so many bytes, so of any 11 bytes that lie somewhere one piece is found. */
const STEP_BYTES = 4;
const FILTER_MASK = (1 << 22) - 1;

/** All mappings of a process. */
export function listMappings(pid: number): readonly ListedMapping[] {
  const listed: ListedMapping[] = [];
  // Each mapping begins with a line of its addresses and ends with its flags.
  for (const entry of readFileSync(`/proc/${pid}/smaps`, 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const [, start, end, permissions = '', name = ''] =
      /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)$/m.exec(entry) ?? [];
    if (start === undefined || end === undefined) throw new Error(`expected a mapping, got ${entry}`);
    const kib = (field: string) => Number(new RegExp(`^${field}: +(\\d+) kB`, 'm').exec(entry)?.[1] ?? 0);
    listed.push({
      start: Number.parseInt(start, 16),
      end: Number.parseInt(end, 16),
      permissions,
      name,
      usedBytes: 1024 * (kib('Rss') + kib('Swap')),
      flags: /^VmFlags: (.*)$/m.exec(entry)?.[1]?.trim().split(' ') ?? [],
    });
  }
  return listed;
}

/** Pieces of some secret bytes, to be found again. */
export class SoughtBytes {
  private readonly filter = new Uint8Array(FILTER_MASK + 1);
  private readonly pieces = new Map<number, Set<number>>();

  constructor(...secrets: readonly Buffer[]) {
    for (const secret of secrets) {
      for (let at = 0; at + PIECE_BYTES <= secret.length; at++)
        this.add(secret.readInt32LE(at), secret.readInt32LE(at + 4));
    }
  }

  private add(low: number, high: number): void {
    this.filter[low & FILTER_MASK] = 1;
    const highs = this.pieces.get(low) ?? new Set();
    this.pieces.set(low, highs.add(high));
  }

  /** Offsets in `words` at which a piece begins. */
  findIn(words: Int32Array): number[] {
    const found: number[] = [];
    for (let i = 0; i + 1 < words.length; i++) {
      const low = words[i] ?? 0;
      if (this.filter[low & FILTER_MASK] === 0) continue;
      if (this.pieces.get(low)?.has(words[i + 1] ?? 0) === true) found.push(i * STEP_BYTES);
    }
    return found;
  }
}

/** Every place where a piece of the sought bytes lies, in all readable memory but the mappings that `isOpen` excludes. */
export function findInMemory(
  pid: number,
  sought: SoughtBytes,
  isExcluded: (mapping: ListedMapping) => boolean,
): {
  readonly places: readonly { readonly mapping: ListedMapping; readonly address: number }[];
  bytes: number;
} {
  const places: { mapping: ListedMapping; address: number }[] = [];
  let bytes = 0;
  const memory = openSync(`/proc/${pid}/mem`, 'r');
  try {
    for (const mapping of listMappings(pid)) {
      if (!mapping.permissions.startsWith('r') || mapping.usedBytes === 0 || isExcluded(mapping)) continue;
      for (const { address, words } of chunksOf(memory, mapping)) {
        bytes += 4 * words.length;
        for (const offset of sought.findIn(words)) places.push({ mapping, address: address + offset });
      }
    }
  } finally {
    closeSync(memory);
  }
  return { places, bytes };
}

/** The chunks of a mapping, each with the beginning of the next one; what has gone meanwhile is left out. */
function* chunksOf(
  memory: number,
  { start, end }: ListedMapping,
): Generator<{ address: number; words: Int32Array }> {
  const chunk = new Int32Array((CHUNK_BYTES + PIECE_BYTES) / 4);
  for (let address = start; address < end; address += CHUNK_BYTES) {
    const wanted = Math.min(end - address, 4 * chunk.length);
    const got = readAt(memory, chunk, wanted, address);
    if (got > 0) yield { address, words: chunk.subarray(0, got >> 2) };
  }
}

/** Bytes read; 0 where nothing can be: [vvar] is listed as readable and is not. */
function readAt(memory: number, chunk: Int32Array, length: number, address: number): number {
  try {
    return readSync(memory, chunk, 0, length, address);
  } catch {
    return 0;
  }
}
