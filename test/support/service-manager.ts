// A stand-in for systemd, for what it does with notifications and with file descriptors that are to be kept: a fake, so that a
// restart takes no container. It keeps each open file once, under its first name, as systemd does, and passes all of them to the
// next process. The real one is in test/systemd.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Test } from 'tap';
import { RETRY_MS } from '../../daemon/systemd/fd-store.js';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';
import { bindTo, MessageBuffer, openDatagramSocket } from '../../shared-memory/unix-socket.js';
import { temporaryFolder } from './rng-daemon.js';
import { MAIN } from './started-process.js';

const MAX_MESSAGE_BYTES = 8192;
const LOOK_EVERY_MS = 2;
const PATIENCE_MS = 20_000;
const QUIET_LOOKS = 3;

/** Keeps what a service asks for, and starts it again. */
export class ServiceManager {
  /** Kept open files, in the order in which they came. */
  readonly store: { readonly name: string; readonly fd: Fd }[] = [];
  /** All assignments that came, in order. */
  readonly told: string[] = [];
  log = '';
  private readonly address: string;
  private readonly socket: Fd;
  private readonly messages = new MessageBuffer();
  private readonly buffer = new NativeMemory(MAX_MESSAGE_BYTES);
  private readonly looks: NodeJS.Timeout;
  private child: ChildProcess | undefined;
  private exited: Promise<unknown> = Promise.resolve();

  constructor(t: Pick<Test, 'teardown'>) {
    this.address = join(temporaryFolder(t), 'notify');
    this.socket = asFd(openDatagramSocket());
    if (bindTo(this.socket, this.address) < 0) throw new Error(`binding ${this.address}`);
    this.looks = setInterval(() => this.receive(), LOOK_EVERY_MS);
    t.teardown(async () => {
      clearInterval(this.looks);
      await this.kill('SIGKILL');
      closeFd(this.socket);
      this.dropStore();
    });
  }

  get pid(): number {
    return this.child?.pid ?? -1;
  }

  /** Names of what is kept, sorted. */
  get names(): string[] {
    this.receive();
    return this.store.map(({ name }) => name).sort();
  }

  /** Starts the service with what is kept, and listening sockets under names; resolves when it is ready. */
  async start(
    args: readonly string[],
    options: {
      readonly sockets?: readonly { name: string; fd: Fd }[];
      readonly env?: NodeJS.ProcessEnv;
    } = {},
  ): Promise<void> {
    this.receive();
    const passed = [...(options.sockets ?? []), ...this.store];
    const from = this.told.length;
    // The shell's pid is that of the program which takes its place.
    const script = 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"';
    this.child = spawn('sh', ['-c', script, 'sh', process.execPath, MAIN, ...args], {
      stdio: ['ignore', 'ignore', 'pipe', ...passed.map(({ fd }) => fd)],
      env: {
        ...process.env,
        NODE_OPTIONS: '',
        NOTIFY_SOCKET: this.address,
        LISTEN_FDS: String(passed.length),
        LISTEN_FDNAMES: passed.map(({ name }) => name).join(':'),
        ...options.env,
      },
    });
    this.exited = once(this.child, 'exit');
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.log += text));
    await this.until(() => this.told.slice(from).includes('READY=1'), 'READY=1');
  }

  /** Waits for something; throws with the log after 20 s. */
  async until(look: () => boolean, what: string): Promise<void> {
    for (const endMs = performance.now() + PATIENCE_MS; !look(); this.receive()) {
      if (performance.now() > endMs)
        throw new Error(`expected ${what}, got\n${this.told.join('\n')}\n${this.log}`);
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
  }

  /** Ends the service by a signal. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    // A service manager of its own process reads at once; this one had no time while the test was busy.
    for (let quiet = 0; quiet < QUIET_LOOKS; quiet++) {
      if (this.receive() > 0) quiet = 0;
      await new Promise((resolve) => setTimeout(resolve, 2 * RETRY_MS));
    }
    await this.killNow(signal);
  }

  /** The same, whatever is on its way. */
  async killNow(signal: NodeJS.Signals): Promise<void> {
    this.child?.kill(signal);
    await this.exited;
    this.child = undefined;
    // What it has said last.
    this.receive();
  }

  /** Takes what has come; how many messages. */
  private receive(): number {
    for (let taken = 0; ; taken++) {
      const fds: Fd[] = [];
      const got = this.messages.receive(
        this.socket,
        this.buffer,
        { offset: 0, length: MAX_MESSAGE_BYTES },
        fds,
      );
      if (got < 0) return taken;
      this.take(this.buffer.bytes.toString('utf8', 0, got).split('\n'), fds);
    }
  }

  private take(assignments: readonly string[], fds: readonly Fd[]): void {
    this.told.push(...assignments);
    const name = assignments.find((one) => one.startsWith('FDNAME='))?.slice('FDNAME='.length) ?? 'stored';
    if (assignments.includes('FDSTOREREMOVE=1')) {
      for (const kept of this.store.filter((one) => one.name === name)) {
        this.store.splice(this.store.indexOf(kept), 1);
        closeFd(kept.fd);
      }
    }
    for (const fd of fds) {
      const isNew = !this.store.some((kept) => libc.compareFiles(kept.fd, fd) === 0);
      if (assignments.includes('FDSTORE=1') && isNew) this.store.push({ name, fd });
      else closeFd(fd);
    }
  }

  /** The service is stopped for good: nothing is kept. */
  dropStore(): void {
    for (const { fd } of this.store) closeFd(fd);
    this.store.length = 0;
  }
}
