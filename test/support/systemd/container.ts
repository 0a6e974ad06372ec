// A real systemd as process 1 of a container: the Debian of root.ts, with this checkout's daemon installed as a package would
// install it. What happens in it is gone with it.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { waitUntil } from '../guest/deadline.js';
import { ChildProcess } from '../guest/child-process.js';
import { runProgram } from '../guest/program.js';
import { makeCgroup, removeCgroup } from './cgroup.js';

const BOOT_TIMEOUT_MS = 60_000;
const COMMAND_TIMEOUT_MS = 60_000;
/** Longest wait for a unit to get somewhere. */
const STATE_TIMEOUT_MS = 30_000;
const END_TIMEOUT_MS = 10_000;

/** A host's file in the container: host path, path there. */
export type Bind = readonly [string, string];

/** How a command in the container has ended. */
export interface CommandEnd {
  readonly status: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** A booted container. */
export class SystemdContainer {
  /** The host's number of its process 1. */
  readonly leader: number;
  private readonly nspawn: ChildProcess;
  private readonly cgroup: string | undefined;

  private constructor(nspawn: ChildProcess, leader: number, cgroup: string | undefined) {
    this.nspawn = nspawn;
    this.leader = leader;
    this.cgroup = cgroup;
  }

  /** Boots `root`, which stays as it is, with `binds` in it, read-only; rejects with what nspawn says when it cannot. */
  static async boot(root: string, binds: readonly Bind[]): Promise<SystemdContainer> {
    const cgroup = makeCgroup();
    const nspawn = new ChildProcess(
      { process: 'systemd-nspawn', stdout: 'console', stderr: 'systemd-nspawn' },
      'sh',
      [
        '-c',
        `${cgroup === undefined ? '' : `echo $$ >'${cgroup}/cgroup.procs' && `}exec "$@"`,
        'sh',
        // A cgroup2 tree also on hosts that still mount the old ones: DevicePolicy= is a program there, which works.
        'env',
        'SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1',
        'systemd-nspawn',
        ...nspawnOptions(root),
        ...binds.map(bindOption),
        '--boot',
      ],
    );
    try {
      let leader: number | undefined;
      const failure = (): string =>
        `the container has not booted\n${nspawn.stdout.quote()}\n${nspawn.stderr.quote()}`;
      await waitUntil(
        () => {
          if (!nspawn.isRunning) throw new Error(failure());
          leader = systemdBelow(nspawn.pid);
          return leader !== undefined;
        },
        BOOT_TIMEOUT_MS,
        failure,
      );
      const container = new SystemdContainer(nspawn, leader ?? -1, cgroup);
      await container.untilRunning();
      return container;
    } catch (error) {
      await nspawn.kill();
      if (cgroup !== undefined) await removeCgroup(cgroup);
      throw error;
    }
  }

  private async untilRunning(): Promise<void> {
    const endMs = performance.now() + BOOT_TIMEOUT_MS;
    for (;;) {
      const { stdout } = await this.run('systemctl', 'is-system-running');
      if (/^(running|degraded)$/m.test(stdout)) return;
      if (performance.now() > endMs)
        throw new Error(`systemd is still ${stdout.trim()}\n${this.nspawn.stdout.quote()}`);
    }
  }

  /** The host's path of a file in the container. */
  path(inside: string): string {
    return `/proc/${this.leader}/root${inside}`;
  }

  /** Runs a program as root in the container, to its end. */
  async run(program: string, ...args: readonly string[]): Promise<CommandEnd> {
    const enter = ['-t', String(this.leader), '-m', '-u', '-i', '-n', '-p'];
    const environment = ['-i', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'LANG=C.UTF-8', 'SYSTEMD_PAGER='];
    const { status, stdout, stderr } = await runProgram(
      'nsenter',
      [...enter, '--', 'env', ...environment, program, ...args],
      { timeoutMs: COMMAND_TIMEOUT_MS },
    );
    return { status, stdout: stdout.toString(), stderr };
  }

  /** What a program that must succeed writes; rejects with its messages otherwise. */
  async outputOf(program: string, ...args: readonly string[]): Promise<string> {
    const { status, stdout, stderr } = await this.run(program, ...args);
    if (status === 0) return stdout;
    throw new Error(`${program} ${args.join(' ')} exited with ${status ?? 'a signal'}:\n${stdout}${stderr}`);
  }

  /** Writes a file, and its folder. */
  async write(path: string, text: string): Promise<void> {
    const host = this.path(path);
    await mkdir(dirname(host), { recursive: true });
    await writeFile(host, text);
  }

  /** Changes a unit's settings until the container ends. */
  async dropIn(unit: string, settings: readonly string[]): Promise<void> {
    await this.write(`/run/systemd/system/${unit}.d/test.conf`, `[Service]\n${settings.join('\n')}\n`);
    await this.outputOf('systemctl', 'daemon-reload');
  }

  /** A property of a unit, as `systemctl show` has it. */
  async property(unit: string, name: string): Promise<string> {
    return (await this.outputOf('systemctl', 'show', '--value', `--property=${name}`, unit)).trim();
  }

  /** Waits until a property of a unit is as `wanted`; rejects with the unit's state and journal. */
  async untilProperty(unit: string, name: string, wanted: (value: string) => boolean): Promise<string> {
    const endMs = performance.now() + STATE_TIMEOUT_MS;
    for (;;) {
      const value = await this.property(unit, name);
      if (wanted(value)) return value;
      if (performance.now() > endMs)
        throw new Error(`${name} of ${unit} is still ${value}\n${await this.journal(unit)}`);
    }
  }

  /** What the journal has of a unit, with systemd's own lines about it. */
  async journal(unit: string): Promise<string> {
    return (await this.run('journalctl', '--no-pager', '--output=short-monotonic', `--unit=${unit}`)).stdout;
  }

  /** How often a pattern is in a unit's journal. */
  async timesInJournal(unit: string, pattern: RegExp): Promise<number> {
    return [...(await this.journal(unit)).matchAll(new RegExp(pattern, 'g'))].length;
  }

  /** Waits until a pattern is in a unit's journal more than `times` times. */
  async untilInJournal(unit: string, pattern: RegExp, times = 0): Promise<void> {
    const endMs = performance.now() + STATE_TIMEOUT_MS;
    while ((await this.timesInJournal(unit, pattern)) <= times)
      if (performance.now() > endMs)
        throw new Error(`expected ${pattern.source} in the journal\n${await this.journal(unit)}`);
  }

  /** The host's number of a unit's main process. */
  async mainPid(unit: string): Promise<number> {
    const inside = Number(await this.property(unit, 'MainPID'));
    const namespace = readlinkSync(`/proc/${this.leader}/ns/pid`);
    const found = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .find((pid) => namespaceOf(pid) === namespace && innerPid(pid) === inside);
    if (found === undefined) throw new Error(`no main process of ${unit}\n${await this.journal(unit)}`);
    return Number(found);
  }

  /** Ends it at once, with all that runs in it. */
  async kill(): Promise<void> {
    if (this.nspawn.isRunning) {
      try {
        process.kill(this.leader, 'SIGKILL');
      } catch {
        // It has ended by itself.
      }
    }
    await this.nspawn.waitExit(END_TIMEOUT_MS).catch(() => this.nspawn.kill());
    if (this.cgroup !== undefined) await removeCgroup(this.cgroup);
  }
}

function nspawnOptions(root: string): string[] {
  return [
    '--quiet',
    '--register=no',
    '--keep-unit',
    `--directory=${root}`,
    `--machine=rngd-test-${process.pid}`,
    // Several containers may run from one root: all changes go to memory.
    '--read-only',
    '--volatile=overlay',
    '--private-network',
    '--link-journal=no',
    '--console=pipe',
    // What nspawn itself forbids: mlock(2) is the unit's to forbid, and DevicePolicy= is a BPF program.
    '--system-call-filter=@memlock bpf',
  ];
}

function bindOption([host, inside]: Bind): string {
  const escape = (path: string): string => path.replace(/[\\:]/g, '\\$&');
  return `--bind-ro=${escape(host)}:${escape(inside)}`;
}

/** The container's process 1, once nspawn's child has become systemd. */
function systemdBelow(nspawn: number): number | undefined {
  const children = readFileSync(`/proc/${nspawn}/task/${nspawn}/children`, 'utf8').trim().split(' ');
  return children.map(Number).find((pid) => pid > 0 && nameOf(pid) === 'systemd');
}

function nameOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function namespaceOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return undefined;
  }
}

function innerPid(pid: string): number | undefined {
  try {
    const numbers = /^NSpid:(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return Number(numbers?.trim().split(/\s+/).at(-1));
  } catch {
    return undefined;
  }
}
