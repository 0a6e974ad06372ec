// What outlives a device's connections, and the process: its counts, and what its limit must not forget. It lies in a memfd that the
// main thread and the data plane both map, and that the process after this one maps again.
//
// Layout, in doubles: a header, the limiter's numbers, then counters for each seat (counters.ts), then the limiter's window. A
// page that nothing was stored in takes no memory.
import { errnoName } from '../shared-memory/errno.js';
import { closeFd, type Fd, inspectFd } from '../shared-memory/fd.js';
import { viewOf } from '../shared-memory/ffi.js';
import { Mapping } from '../shared-memory/mapping.js';
import { openMemfd } from '../shared-memory/memfd.js';
import { COUNTER_WORDS } from './counters.js';
import { LimiterMemory, LIMITER_STATE_WORDS, LIMITER_SLOT_WORDS } from './limiter-memory.js';

/** Front-ends that one socket may serve at a time. Ours. */
export const MAX_SEATS = 64;

/** Changes with the layout, or with what a number means. */
const LAYOUT_VERSION = 1;
/** 'rngd'. */
const MAGIC = 0x64676e72;
const HEADER_WORDS = 8;
const SEATS_AT = HEADER_WORDS + LIMITER_STATE_WORDS;
const SLOTS_AT = SEATS_AT + MAX_SEATS * COUNTER_WORDS;
const WORDS = SLOTS_AT + LIMITER_SLOT_WORDS;
const PAGE_WORDS = 512;
const LEDGER_BYTES = Math.ceil(WORDS / PAGE_WORDS) * PAGE_WORDS * Float64Array.BYTES_PER_ELEMENT;

/** One device's ledger, as one thread sees it. */
export class Ledger {
  /** Where it lies in this process; another thread opens it by this. */
  readonly address: number;
  private readonly words: Float64Array;

  /** The ledger at the address of another thread's, which outlives this. */
  constructor(address: number) {
    this.address = address;
    // SAFETY: whoever gives the address keeps LEDGER_BYTES mapped there for as long as any thread uses it.
    const bytes = viewOf(address, LEDGER_BYTES);
    this.words = new Float64Array(bytes.buffer, bytes.byteOffset, WORDS);
  }

  get limiter(): LimiterMemory {
    return new LimiterMemory(
      this.words.subarray(HEADER_WORDS, SEATS_AT),
      this.words.subarray(SLOTS_AT, SLOTS_AT + LIMITER_SLOT_WORDS),
    );
  }

  /** Counters of a seat, 0 to {@link MAX_SEATS} - 1. */
  seat(number: number): Float64Array {
    const at = SEATS_AT + number * COUNTER_WORDS;
    return this.words.subarray(at, at + COUNTER_WORDS);
  }
}

/** The main thread's end: the file, which it owns, and its mapping. */
export class LedgerFile {
  readonly fd: Fd;
  readonly ledger: Ledger;
  private readonly mapping: Mapping;

  private constructor(fd: Fd, mapping: Mapping) {
    this.fd = fd;
    this.mapping = mapping;
    this.ledger = new Ledger(mapping.address);
  }

  /** A new one, all zeros. Throws when there is no memory. */
  static create(): LedgerFile {
    const fd = openMemfd('vhost-rngd-ledger', LEDGER_BYTES);
    const file = new LedgerFile(fd, map(fd));
    file.header.set([MAGIC, LAYOUT_VERSION]);
    return file;
  }

  /** One that another process has left (adopts `fd`); undefined, `fd` left to the caller: it is of another version. */
  static open(fd: Fd): LedgerFile | undefined {
    if (inspectFd(fd).bytes !== BigInt(LEDGER_BYTES)) return undefined;
    const mapping = map(fd);
    const file = new LedgerFile(fd, mapping);
    const [magic, version] = file.header;
    if (magic === MAGIC && version === LAYOUT_VERSION) return file;
    mapping.unmap();
    return undefined;
  }

  private get header(): Float64Array {
    const bytes = this.mapping.view(0, HEADER_WORDS * Float64Array.BYTES_PER_ELEMENT);
    return new Float64Array(bytes.buffer, bytes.byteOffset, HEADER_WORDS);
  }

  /** Lets it go. SAFETY: no thread uses the ledger any more. */
  close(): void {
    this.mapping.unmap();
    closeFd(this.fd);
  }
}

function map(fd: Fd): Mapping {
  const mapping = Mapping.ofFile(fd, 0, LEDGER_BYTES, false);
  if (typeof mapping === 'number') throw new Error(`mmap of a ledger: ${errnoName(mapping)}`);
  return mapping;
}
