// A record that survives its process: text in a memfd, replaced as a whole, so that whoever finds the file has the last one
// that was written to its end, whenever the writer was killed.
//
// Two areas take turns. The text is written first, then the area's header, 16 bytes within one page, which makes it count:
// u32 magic, u32 sequence, u32 length, u32 check of the text. Behind the areas is one u32 more: the sequence of the record whose
// message is out of the socket (incoming-message.ts), so that this costs no record of its own.
import { readSync } from 'node:fs';
import { type Fd } from '../../shared-memory/fd.js';
import { openMemfd, writeWhole } from '../../shared-memory/memfd.js';

/** 'rngd', little-endian. */
const MAGIC = 0x64676e72;
const HEADER_BYTES = 16;
/** Room for a record; the file is sparse, so room costs nothing. Ours: hundreds of memory regions, at 150 bytes, and a message. */
const AREA_BYTES = 512 * 1024;
const AREAS = [0, AREA_BYTES] as const;

const ACKNOWLEDGED_AT = AREAS.length * AREA_BYTES;
const FILE_BYTES = ACKNOWLEDGED_AT + 4;

/** The largest text that fits, in bytes. */
export const MAX_RECORD_BYTES = AREA_BYTES - HEADER_BYTES;

/** One record's file. Borrows the fd. */
export class RecordFile {
  readonly fd: Fd;
  private sequence: number;

  private constructor(fd: Fd, sequence: number) {
    this.fd = fd;
    this.sequence = sequence;
  }

  /** A new, empty file, whose fd is the caller's. Throws a Fault when there is none. */
  static create(): RecordFile {
    return new RecordFile(openMemfd('vhost-rngd-record', FILE_BYTES), 0);
  }

  /** The file that another process has written, and its last record; undefined when there is no whole one. */
  static open(
    fd: Fd,
  ): { readonly file: RecordFile; readonly text: string; readonly isAcknowledged: boolean } | undefined {
    const [newest] = AREAS.flatMap((at) => readArea(fd, at) ?? []).sort((a, b) => b.sequence - a.sequence);
    if (newest === undefined) return undefined;
    const { sequence, text } = newest;
    return { file: new RecordFile(fd, sequence), text, isAcknowledged: acknowledged(fd) === sequence };
  }

  /** Replaces the record. Throws when it is too long, or when there is no memory. */
  write(text: string): void {
    const bytes = Buffer.from(text);
    if (bytes.length > MAX_RECORD_BYTES) throw new RangeError(`a record of ${bytes.length} bytes`);
    const sequence = this.sequence + 1;
    const at = AREAS[sequence % AREAS.length] ?? 0;
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt32LE(MAGIC, 0);
    header.writeUInt32LE(sequence, 4);
    header.writeUInt32LE(bytes.length, 8);
    header.writeUInt32LE(checkOf(bytes), 12);
    writeWhole(this.fd, bytes, at + HEADER_BYTES);
    writeWhole(this.fd, header, at);
    this.sequence = sequence;
  }

  /** What the last record says to be in the socket too is there no more. */
  acknowledge(): void {
    const sequence = Buffer.alloc(4);
    sequence.writeUInt32LE(this.sequence);
    writeWhole(this.fd, sequence, ACKNOWLEDGED_AT);
  }
}

function acknowledged(fd: Fd): number {
  const sequence = Buffer.alloc(4);
  readSync(fd, sequence, 0, sequence.length, ACKNOWLEDGED_AT);
  return sequence.readUInt32LE();
}

function readArea(fd: Fd, at: number): { readonly sequence: number; readonly text: string } | undefined {
  const header = Buffer.alloc(HEADER_BYTES);
  if (readSync(fd, header, 0, HEADER_BYTES, at) !== HEADER_BYTES) return undefined;
  const length = header.readUInt32LE(8);
  if (header.readUInt32LE(0) !== MAGIC || length > MAX_RECORD_BYTES) return undefined;
  const bytes = Buffer.alloc(length);
  if (readSync(fd, bytes, 0, length, at + HEADER_BYTES) !== length) return undefined;
  // The area may have been under way to a later record: its text is new, its header is not.
  if (checkOf(bytes) !== header.readUInt32LE(12)) return undefined;
  return { sequence: header.readUInt32LE(4), text: bytes.toString('utf8') };
}

/** FNV-1a, 32 bits: tells a text from another that was half written over it. */
function checkOf(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}
