// A stand-in for systemd, for what it does with notifications and with file descriptors that are to be kept: a fake, so that a
// restart takes no container. It keeps each open file once, under its first name, as systemd does, and passes all of them to the
// next process. The real one is in test/systemd.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { Test } from 'tap';
import { NotifySocket } from '../../daemon/systemd/notify-socket.js';
import { closeFd, type Fd } from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import type { Notification, ReaderSetup } from './notify-reader.js';
import { temporaryFolder } from './rng-daemon.js';
import { MAIN } from './started-process.js';

const READER = new URL('./notify-reader.js', import.meta.url);
const LOOK_EVERY_MS = 2;
const PATIENCE_MS = 20_000;

/** Keeps what a service asks for, and starts it again. */
export class ServiceManager {
  /** Kept open files, in the order in which they came. */
  readonly store: { readonly name: string; readonly fd: Fd }[] = [];
  /** All assignments that came, in order. */
  readonly told: string[] = [];
  log = '';
  private readonly address: string;
  private readonly came = new MessageChannel();
  private marks = 0;
  private readonly looks: NodeJS.Timeout;
  private child: ChildProcess | undefined;
  private exited: Promise<unknown> = Promise.resolve();

  constructor(t: Pick<Test, 'teardown'>) {
    this.address = join(temporaryFolder(t), 'notify');
    this.looks = setInterval(() => this.receive(), LOOK_EVERY_MS);
    const ended = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
    const { port2: port } = this.came;
    const workerData: ReaderSetup = { address: this.address, port, ended };
    // Without the test runner's hooks, which keep a thread from ending.
    const reader = new Worker(READER, {
      workerData,
      transferList: [port],
      execArgv: [],
      env: { NODE_OPTIONS: '' },
    });
    t.teardown(async () => {
      clearInterval(this.looks);
      await this.kill('SIGKILL');
      Atomics.store(ended, 0, 1);
      await once(reader, 'exit');
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
    await this.until(() => this.told.includes('BOUND=1'), 'a socket');
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
    for (const endMs = performance.now() + PATIENCE_MS; !look();) {
      if (performance.now() > endMs)
        throw new Error(`expected ${what}, got\n${this.told.join('\n')}\n${this.log}`);
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
      this.receive();
    }
  }

  /** Ends the service by a signal, at whatever moment this is. */
  async kill(signal: NodeJS.Signals): Promise<void> {
    this.child?.kill(signal);
    await this.exited;
    this.child = undefined;
    await this.settle();
  }

  /** Takes all that was said up to now. */
  private async settle(): Promise<void> {
    const mark = `MARK=${++this.marks}`;
    const own = NotifySocket.open(this.address);
    while ((own?.send(mark) ?? 0) < 0) own?.waitForRoom(LOOK_EVERY_MS);
    own?.close();
    await this.until(() => this.told.includes(mark), mark);
  }

  /** Takes what has come. */
  private receive(): void {
    for (
      let got = receiveMessageOnPort(this.came.port1);
      got !== undefined;
      got = receiveMessageOnPort(this.came.port1)
    ) {
      const { text, fds } = got.message as Notification;
      this.take(text.split('\n'), fds);
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
