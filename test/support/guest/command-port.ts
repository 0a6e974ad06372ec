// The host's end of the guest's second serial port: sends one command line at a time and cuts its answer out of the
// byte stream. The guest's end is the loop in initramfs.ts.
import { randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { withDeadline } from './deadline.js';
import { READY_LINE } from './initramfs.js';

export interface CommandResult {
  /** The command's exit status in the guest. */
  readonly status: number;
  /** What it wrote to standard output and standard error, as bytes. */
  readonly bytes: Buffer;
}

/** Longest end mark: line feed, 16 hex digits, space, status, line feed. */
const LONGEST_MARK = 24;

/** Serves one command at a time; a second one waits for the first. */
export class CommandPort {
  readonly #socket: Socket;
  readonly #ended: Promise<never>;
  #chunks: Buffer[] = [];
  #arrived: () => void = () => undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#arrived();
    });
    this.#ended = new Promise((_resolve, reject) => {
      socket.on('close', () => reject(new Error('the guest is gone: its serial port closed')));
    });
    this.#ended.catch(() => undefined);
  }

  /** Waits until the guest has booted and takes commands; what it wrote before is dropped. */
  async waitForReady(timeoutMs: number): Promise<void> {
    await this.#waitForEnd(new RegExp(`${READY_LINE}\n$`), timeoutMs, 'the guest to boot');
  }

  /** Forgets what has arrived: the guest starts anew. */
  clear(): void {
    this.#chunks = [];
  }

  /** Runs a shell command, one line, in the guest. Rejects when it takes longer than `timeoutMs`. */
  run(command: string, timeoutMs: number): Promise<CommandResult> {
    const result = this.#last.then(() => this.#runNow(command, timeoutMs));
    this.#last = result.catch(() => undefined);
    return result;
  }

  /** Runs a shell command that never ends; each piece of its output goes to `onBytes` alone. */
  stream(command: string, onBytes: (bytes: Buffer) => void): void {
    this.#socket.removeAllListeners('data');
    this.#socket.on('data', onBytes);
    this.#socket.write(`stream ${command}\n`);
  }

  async #runNow(command: string, timeoutMs: number): Promise<CommandResult> {
    if (command.includes('\n')) throw new Error(`expected one line as the guest's command, got: ${command}`);
    const token = randomBytes(8).toString('hex');
    this.clear();
    this.#socket.write(`${token} ${command}\n`);
    const { match, bytes } = await this.#waitForEnd(
      new RegExp(`\n${token} (\\d+)\n$`),
      timeoutMs,
      `the guest's command to end: ${command}`,
    );
    return { status: Number(match[1]), bytes: bytes.subarray(0, bytes.length - match[0].length) };
  }

  /** Waits until what has arrived ends in `mark`, which an answer of random bytes does not by chance. */
  async #waitForEnd(
    mark: RegExp,
    timeoutMs: number,
    what: string,
  ): Promise<{ readonly match: RegExpExecArray; readonly bytes: Buffer }> {
    const found = new Promise<RegExpExecArray>((resolve) => {
      this.#arrived = () => {
        const match = mark.exec(this.#tail());
        if (match !== null) resolve(match);
      };
      this.#arrived();
    });
    const match = await withDeadline(
      Promise.race([found, this.#ended]),
      timeoutMs,
      () => `expected ${what} within ${timeoutMs} ms, got ${this.#describe()}`,
    );
    const bytes = Buffer.concat(this.#chunks);
    this.clear();
    return { match, bytes };
  }

  /** The last bytes only: an answer of a megabyte comes in thousands of chunks. */
  #tail(): string {
    const tail: Buffer[] = [];
    let length = 0;
    for (
      let index = this.#chunks.length - 1;
      index >= 0 && length < LONGEST_MARK + READY_LINE.length;
      index--
    ) {
      const chunk = this.#chunks[index];
      if (chunk === undefined) break;
      tail.unshift(chunk);
      length += chunk.length;
    }
    return Buffer.concat(tail).toString('latin1');
  }

  #describe(): string {
    const bytes = Buffer.concat(this.#chunks);
    return bytes.length === 0
      ? 'no output'
      : `${bytes.length} bytes: ${JSON.stringify(bytes.toString('latin1', 0, 400))}`;
  }
}
