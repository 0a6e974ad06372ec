// A real guest: QEMU with a Debian kernel and the initramfs of initramfs.ts, driven through QMP and a command port. All
// that it does has a deadline, and what fails quotes the guest's console.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ChildProcess, type ExitStatus } from './child-process.js';
import { CommandPort, type CommandResult } from './command-port.js';
import { withDeadline } from './deadline.js';
import { buildInitramfs } from './initramfs.js';
import { fetchKernel } from './kernel.js';
import { type MachineOptions, qemuArguments } from './qemu-arguments.js';
import { QmpClient } from './qmp.js';

/** An emulated guest boots in 3 to 10 s; twelve times that on a machine that does much else. */
const BOOT_TIMEOUT_MS = 120_000;

const COMMAND_TIMEOUT_MS = 30_000;
const EXIT_TIMEOUT_MS = 30_000;

const TITLES = { process: 'QEMU', stdout: 'guest console', stderr: 'QEMU messages' } as const;

export interface GuestOptions extends MachineOptions {
  /** The program; by default the QEMU that is installed. */
  readonly emulator?: string;
  /** Default 120 000. */
  readonly bootTimeoutMs?: number;
  /** Where the guest's private folder is made; default: the system's folder for temporary files. */
  readonly parentFolder?: string;
}

/** Boots a guest and waits until it takes commands; the caller must `kill` it, which is also right after its end. */
export async function bootGuest(options: GuestOptions): Promise<Guest> {
  const folder = await mkdtemp(join(options.parentFolder ?? tmpdir(), 'vhost-rngd-guest-'));
  try {
    const kernel = await fetchKernel();
    const files = {
      kernel: kernel.imagePath,
      initramfs: join(folder, 'initramfs.cpio'),
      qmpSocket: join(folder, 'qmp'),
      commandSocket: join(folder, 'commands'),
    };
    await writeFile(files.initramfs, await buildInitramfs(kernel));
    const listeners = [await listenForOne(files.qmpSocket), await listenForOne(files.commandSocket)] as const;
    const child = new ChildProcess(
      TITLES,
      options.emulator ?? 'qemu-system-x86_64',
      qemuArguments(options, files),
    );
    const guest = new Guest(child, folder);
    try {
      await guest.boot(listeners, options.bootTimeoutMs ?? BOOT_TIMEOUT_MS);
    } finally {
      for (const listener of listeners) listener.close();
    }
    return guest;
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

/** A Unix socket that takes the one connection that QEMU makes to it as it starts. */
interface Listener {
  readonly accepted: Promise<Socket>;
  readonly close: () => void;
}

/** A running guest. Failures of its methods carry the console's last lines. */
export class Guest {
  readonly #child: ChildProcess;
  readonly #folder: string;
  #qmp: QmpClient | undefined;
  #commands: CommandPort | undefined;

  constructor(child: ChildProcess, folder: string) {
    this.#child = child;
    this.#folder = folder;
  }

  /** QEMU's process id. */
  get pid(): number {
    return this.#child.pid;
  }

  /** All that the guest's kernel and /init have written to the console. */
  get console(): string {
    return this.#child.stdout.text;
  }

  /** QEMU's own messages. */
  get messages(): string {
    return this.#child.stderr.text;
  }

  /** For `bootGuest`: takes QEMU's two connections and waits for /init; ends QEMU when that fails. */
  async boot([qmp, commands]: readonly [Listener, Listener], timeoutMs: number): Promise<void> {
    try {
      await this.#explained(async () => {
        const connected = Promise.all([qmp.accepted, commands.accepted]);
        const [qmpSocket, commandSocket] = await withDeadline(
          Promise.race([connected, this.#endedEarly()]),
          timeoutMs,
          () => `QEMU did not start within ${timeoutMs} ms`,
        );
        this.#commands = new CommandPort(commandSocket);
        this.#qmp = await QmpClient.start(qmpSocket);
        await this.#waitForBoot(timeoutMs, 0);
      });
    } catch (error) {
      await this.kill();
      throw error;
    }
  }

  /** Runs one line of shell in the guest; gives its exit status and its raw output. */
  run(command: string, timeoutMs = COMMAND_TIMEOUT_MS): Promise<CommandResult> {
    return this.#explained(() => this.#commandPort().run(command, timeoutMs));
  }

  /** Gives the trimmed output of a command that must succeed. */
  async output(command: string, timeoutMs = COMMAND_TIMEOUT_MS): Promise<string> {
    const { status, bytes } = await this.run(command, timeoutMs);
    const text = bytes.toString().trim();
    if (status !== 0) throw this.#failure(`the guest's command exited with ${status}: ${command}\n${text}`);
    return text;
  }

  /** Runs a command that never ends, and gives each piece of its output as it comes; the guest takes no other command any more. */
  stream(command: string, onBytes: (bytes: Buffer) => void): void {
    this.#commandPort().stream(command, onBytes);
  }

  /** Whether QEMU runs. */
  get isRunning(): boolean {
    return this.#child.isRunning;
  }

  /** Reads `length` bytes, a multiple of 64, from the guest's /dev/hwrng. */
  async readHwrng(length: number, timeoutMs = 120_000): Promise<Buffer> {
    const command = `dd if=/dev/hwrng bs=64 count=${length / 64} iflag=fullblock 2>/dev/null`;
    const { status, bytes } = await this.run(command, timeoutMs);
    if (status === 0 && bytes.length === length) return bytes;
    throw this.#failure(
      `expected ${length} bytes of /dev/hwrng, got ${bytes.length} and exit status ${status}`,
    );
  }

  /** Runs a QMP command. */
  qmp(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    return this.#explained(() => this.#qmpClient().execute(command, args));
  }

  /** Resets the machine as its reset button does and waits until the guest has booted again. */
  async reset(): Promise<void> {
    await this.#explained(async () => {
      const from = this.console.length;
      this.#commandPort().clear();
      await this.#qmpClient().execute('system_reset');
      await this.#waitForBoot(BOOT_TIMEOUT_MS, from);
    });
  }

  /** Stops the virtual CPUs and, with them, the devices. */
  async stop(): Promise<void> {
    await this.#changeRunState('stop', 'STOP');
  }

  /** Lets a stopped guest go on. */
  async cont(): Promise<void> {
    await this.#changeRunState('cont', 'RESUME');
  }

  /** Lets the guest switch itself off, and waits for QEMU's end. */
  async powerOff(): Promise<ExitStatus> {
    return await this.#explained(async () => {
      // The shell never answers: the machine is off before.
      this.#commandPort()
        .run('poweroff -f', EXIT_TIMEOUT_MS)
        .catch(() => undefined);
      return await this.waitExit();
    });
  }

  /** Waits for QEMU's end. */
  waitExit(timeoutMs = EXIT_TIMEOUT_MS): Promise<ExitStatus> {
    return this.#child.waitExit(timeoutMs);
  }

  /** Ends QEMU with SIGKILL, if it still runs, and removes its files. */
  async kill(): Promise<void> {
    await this.#child.kill();
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** `from`: where on the console this boot begins. */
  async #waitForBoot(timeoutMs: number, from: number): Promise<void> {
    const outcome = await this.#child.stdout.waitFor(
      /init: ready for commands|Kernel panic/,
      timeoutMs,
      from,
    );
    if (outcome[0] === 'Kernel panic') throw new Error('the guest kernel panicked');
    await this.#commandPort().waitForReady(COMMAND_TIMEOUT_MS);
  }

  async #changeRunState(command: string, event: string): Promise<void> {
    await this.#explained(async () => {
      const qmp = this.#qmpClient();
      qmp.clearEvents();
      await qmp.execute(command);
      await qmp.waitForEvent(event);
    });
  }

  async #endedEarly(): Promise<never> {
    const { code, signal } = await this.#child.exited;
    throw new Error(`QEMU ended early (${signal ?? `exit code ${code ?? 'unknown'}`})`);
  }

  #commandPort(): CommandPort {
    if (this.#commands === undefined) throw new Error('the guest has not booted');
    return this.#commands;
  }

  #qmpClient(): QmpClient {
    if (this.#qmp === undefined) throw new Error('the guest has not booted');
    return this.#qmp;
  }

  async #explained<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw this.#failure(error instanceof Error ? error.message : String(error), error);
    }
  }

  #failure(what: string, cause?: unknown): Error {
    return new Error(`${what}\n${this.#child.stdout.quote()}\n${this.#child.stderr.quote()}`, { cause });
  }
}

async function listenForOne(path: string): Promise<Listener> {
  const server = createServer();
  const accepted = new Promise<Socket>((resolve) => {
    server.once('connection', (socket) => {
      // A VMM that ends with unread data resets the connection; its end is told by the process itself.
      socket.on('error', () => undefined);
      resolve(socket);
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  return { accepted, close: () => server.close() };
}
