// What a process holds, as the kernel tells it: open files and mapped guest memory.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

/** Targets of all open file descriptors, sorted; inode numbers are left out, so that two moments can be compared. */
export function openFiles(pid: number): readonly string[] {
  const folder = `/proc/${pid}/fd`;
  return (
    readdirSync(folder)
      .map((fd) => targetOf(join(folder, fd)))
      .filter((target) => target !== undefined)
      // The daemon looks at its own threads in /proc for a moment now and then.
      .filter((target) => !target.startsWith('/proc/'))
      .map((target) => target.replace(/:\[\d+\]$/, ''))
      .sort()
  );
}

/** The lines of the memory map that show guest memory made by QEMU's memory-backend-memfd. */
export function guestMappings(pid: number): readonly string[] {
  const lines = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
  return lines.filter((line) => line.includes('/memfd:memory-backend-memfd'));
}

/** Undefined when the descriptor was closed between listing and looking. */
function targetOf(link: string): string | undefined {
  try {
    return readlinkSync(link);
  } catch {
    return undefined;
  }
}
