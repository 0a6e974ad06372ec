// A device whose driver ignores O_NONBLOCK and hangs in open(2) or read(2): a file of a FUSE server in a process of its own.
//
// It lets go of a call when its caller is killed, as drivers that wait killably do: one that does not keeps the process for
// ever, in any language. Speaks just enough to be opened. Source: linux/fuse.h. Needs root.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, openSync, readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { temporaryFolder } from './rng-daemon.js';

/** Where the caller hangs. */
export type HungCall = 'open' | 'read';

const Opcode = {
  Lookup: 1,
  GetAttr: 3,
  Open: 14,
  Read: 15,
  Release: 18,
  Flush: 25,
  Init: 26,
  Interrupt: 36,
} as const;
/** FORGET and BATCH_FORGET. */
const UNANSWERED: readonly number[] = [2, 42];
const SCRIPT = fileURLToPath(import.meta.url);
const IN_HEADER_BYTES = 40;
const OUT_HEADER_BYTES = 16;
const REQUEST_BYTES = 1 << 20;
const ROOT_NODE = 1n;
const FILE_NODE = 2n;
const FOLDER_MODE = 0o040755;
const FILE_MODE = 0o100444;
const FILE_NAME = 'device';
const FOREVER_S = 1n << 30n;
const DIRECT_IO = 1;
const { ENOENT, ENOSYS, EINTR } = constants.errno;

/** Starts the server: the device's path, or why there is none. Unmounted with the test. */
export async function makeBlockingDevice(
  t: Pick<Test, 'teardown'>,
  hungCall: HungCall,
): Promise<{ readonly path: string } | { readonly missing: string }> {
  const folder = join(temporaryFolder(t), 'mount');
  mkdirSync(folder);
  const command = ['--pdeathsig', 'KILL', process.execPath, SCRIPT, folder, hungCall];
  // Without the hooks of the test runner.
  const env = { ...process.env, NODE_OPTIONS: '' };
  const server = spawn('setpriv', command, { stdio: ['ignore', 'pipe', 'pipe'], env });
  const exited = new Promise<void>((resolve) => server.once('exit', () => resolve()));
  t.teardown(async () => {
    // First the server: who hangs in it goes free, and the folder can be unmounted.
    server.kill('SIGKILL');
    await exited;
    spawnSync('umount', ['--lazy', folder]);
  });
  let said = '';
  const ready = new Promise<void>((resolve) => {
    for (const stream of [server.stdout, server.stderr]) {
      stream.on('data', (text: Buffer) => {
        said += text.toString();
        if (said.includes('ready')) resolve();
      });
    }
  });
  await Promise.race([ready, exited]);
  return said.includes('ready') ? { path: join(folder, FILE_NAME) } : { missing: said.trim() };
}

/** struct fuse_attr of a node: its number, mode and one link; no size, which direct reads do not ask for. */
function attributes(node: bigint): Buffer {
  const attr = Buffer.alloc(88);
  attr.writeBigUInt64LE(node, 0);
  attr.writeUInt32LE(node === ROOT_NODE ? FOLDER_MODE : FILE_MODE, 60);
  attr.writeUInt32LE(1, 64);
  return attr;
}

/** A body, or a negated error number. */
function answer(opcode: number, node: bigint, body: Buffer): Buffer | number {
  switch (opcode) {
    case Opcode.Init: {
      const init = Buffer.alloc(64);
      init.writeUInt32LE(7, 0);
      init.writeUInt32LE(31, 4);
      init.writeUInt32LE(4096, 20);
      return init;
    }
    case Opcode.Lookup: {
      if (body.subarray(0, body.indexOf(0)).toString() !== FILE_NAME) return -ENOENT;
      const entry = Buffer.alloc(40);
      entry.writeBigUInt64LE(FILE_NODE, 0);
      entry.writeBigUInt64LE(FOREVER_S, 16);
      entry.writeBigUInt64LE(FOREVER_S, 24);
      return Buffer.concat([entry, attributes(FILE_NODE)]);
    }
    case Opcode.GetAttr: {
      const valid = Buffer.alloc(16);
      valid.writeBigUInt64LE(FOREVER_S, 0);
      return Buffer.concat([valid, attributes(node)]);
    }
    case Opcode.Open: {
      const open = Buffer.alloc(16);
      open.writeUInt32LE(DIRECT_IO, 8);
      return open;
    }
    case Opcode.Release:
    case Opcode.Flush:
      return Buffer.alloc(0);
    default:
      return -ENOSYS;
  }
}

/** Answers every request but those that hang. */
function serve(folder: string, hungCall: string | undefined): void {
  const fd = openSync('/dev/fuse', 'r+');
  // mount(8) is given the descriptor under the number that stands in the options.
  const options = 'fd=3,rootmode=40000,user_id=0,group_id=0,allow_other';
  const mounted = spawnSync('mount', ['-i', '-t', 'fuse', '-o', options, 'blocking-device', folder], {
    stdio: ['ignore', 'inherit', 'inherit', fd],
  });
  if (mounted.status !== 0) process.exit(1);
  writeSync(1, 'ready\n');
  const reply = (unique: bigint, result: Buffer | number): void => {
    const body = typeof result === 'number' ? Buffer.alloc(0) : result;
    const head = Buffer.alloc(OUT_HEADER_BYTES);
    head.writeUInt32LE(OUT_HEADER_BYTES + body.length, 0);
    head.writeInt32LE(typeof result === 'number' ? result : 0, 4);
    head.writeBigUInt64LE(unique, 8);
    writeSync(fd, Buffer.concat([head, body]));
  };
  const hung: number = hungCall === 'open' ? Opcode.Open : Opcode.Read;
  const request = Buffer.alloc(REQUEST_BYTES);
  for (;;) {
    const length = readSync(fd, request);
    const opcode = request.readUInt32LE(4);
    const unique = request.readBigUInt64LE(8);
    if (opcode === Opcode.Interrupt) reply(request.readBigUInt64LE(IN_HEADER_BYTES), -EINTR);
    else if (opcode !== hung && !UNANSWERED.includes(opcode))
      reply(unique, answer(opcode, request.readBigUInt64LE(16), request.subarray(IN_HEADER_BYTES, length)));
  }
}

const [, script, folder, hungCall] = process.argv;
if (script === SCRIPT && folder !== undefined) serve(folder, hungCall);
