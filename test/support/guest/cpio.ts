// Writes a cpio archive of the "newc" form, which the Linux kernel unpacks as its initramfs.
// Source: linux/Documentation/driver-api/early-userspace/buffer-format.rst.

export interface CpioEntry {
  /** Path without a leading slash. */
  readonly name: string;
  /** File type and permissions, as in `st_mode`. */
  readonly mode: number;
  /** Contents of a file, target of a symbolic link; empty for others. */
  readonly data?: Buffer;
  /** Major and minor number of a device node. */
  readonly device?: readonly [major: number, minor: number];
}

/** The file types of `st_mode` that an initramfs here has. */
export const FILE_TYPE = { folder: 0o040000, character: 0o020000, file: 0o100000, link: 0o120000 } as const;

const MAGIC = '070701';

/** Headers with names, and data, are padded to this. */
const ALIGNMENT = 4;

/** Gives the whole archive; folders must stand before what is in them. */
export function encodeCpio(entries: readonly CpioEntry[]): Buffer {
  const parts = entries.flatMap((entry, index) => encodeEntry(entry, index + 1));
  return Buffer.concat([...parts, ...encodeEntry({ name: 'TRAILER!!!', mode: 0 }, 0)]);
}

function encodeEntry(entry: CpioEntry, inode: number): Buffer[] {
  const data = entry.data ?? Buffer.alloc(0);
  const name = Buffer.from(`${entry.name}\0`);
  const [major, minor] = entry.device ?? [0, 0];
  // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
  const fields = [inode, entry.mode, 0, 0, 1, 0, data.length, 0, 0, major, minor, name.length, 0];
  const header = Buffer.from(MAGIC + fields.map((field) => field.toString(16).padStart(8, '0')).join(''));
  return [padded(Buffer.concat([header, name])), padded(data)];
}

function padded(bytes: Buffer): Buffer {
  const excess = bytes.length % ALIGNMENT;
  return excess === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(ALIGNMENT - excess)]);
}
