// A FIFO in the place of a device: while the test holds it open the device "is there", silent or not.
import { spawnSync } from 'node:child_process';
import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { temporaryFolder } from './rng-daemon.js';

/** A pipe holds so much by default. */
const PIPE_BYTES = 65_536;

export interface Fifo {
  readonly path: string;
  /** Writes all, which must fit a pipe: {@link PIPE_BYTES} that were not read yet. */
  write(bytes: Uint8Array | string): void;
  /** The device goes: its reader sees the end. */
  unplug(): void;
  plug(): void;
}

export function makeFifo(t: Pick<Test, 'teardown'>): Fifo {
  const path = join(temporaryFolder(t), 'device');
  if (spawnSync('mkfifo', [path]).status !== 0) throw new Error('mkfifo');
  // Read and write: opening does not wait for the other end.
  const open = (): number => openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  let fd = open();
  const unplug = (): void => {
    if (fd >= 0) closeSync(fd);
    fd = -1;
  };
  t.teardown(unplug);
  return {
    path,
    write: (bytes) => {
      const written = writeSync(fd, Buffer.from(bytes));
      if (written !== bytes.length)
        throw new Error(`${written} of ${bytes.length} bytes fit, of ${PIPE_BYTES}`);
    },
    unplug,
    plug: () => (fd = open()),
  };
}
