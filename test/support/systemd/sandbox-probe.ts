// Runs inside the sandbox of a service and tries things: prints, as one line of JSON, what came of each and whether it is meant to be
// allowed. Its argument is the service's folder for sockets.
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { asFd, closeFd } from '../../../shared-memory/fd.js';
import { openEventfd } from '../../../shared-memory/eventfd.js';
import { Mapping } from '../../../shared-memory/mapping.js';
import { openMemfd } from '../../../shared-memory/memfd.js';

/** What the line begins with. */
export const PROBE_MARK = 'sandbox-probe: ';

/** One thing that was tried. */
export interface Finding {
  readonly what: string;
  readonly allowed: boolean;
  /** `done`, or the error's name or text. */
  readonly outcome: string;
}

type Try = readonly [what: string, attempt: () => unknown];

/** What the service must be able to do. */
function allowedTries(folder: string): Try[] {
  return [
    ['read /dev/random', () => readSome('/dev/random')],
    ['open /dev/hwrng', openHwrng],
    ['write /dev/null', () => fs.writeFileSync('/dev/null', 'x')],
    ['a file in its folder of sockets', () => fs.writeFileSync(join(folder, 'probe'), 'x')],
    ['a file in its own /tmp', () => fs.writeFileSync('/tmp/probe', 'x')],
    ['chown to its own group', () => fs.chownSync(join(folder, 'probe'), -1, process.getgid?.() ?? 0)],
    ['read the CPU flags', () => fs.readFileSync('/proc/cpuinfo')],
    ['read the overcommit policy', () => fs.readFileSync('/proc/sys/vm/overcommit_memory')],
    ['read users and groups', () => [fs.readFileSync('/etc/passwd'), fs.readFileSync('/etc/group')]],
    ['an eventfd', () => closeFd(openEventfd())],
    ['a memfd', () => closeFd(asFd(openMemfd('probe', 4096, { sealed: true })))],
    ['locked memory', lockMemory],
    [
      'code made at run time',
      () => spawned(process.execPath, '-e', 'for (let i = 0; i < 1e6; i++) Math.sqrt(i)'),
    ],
  ];
}

/** What it has no business with. */
function deniedTries(): Try[] {
  return [
    ['read a home', () => fs.readFileSync('/home/someone/secret')],
    ["read root's home", () => fs.readFileSync('/root/secret')],
    ['write to /etc', () => fs.writeFileSync('/etc/probe', 'x')],
    ['write to /usr', () => fs.writeFileSync('/usr/probe', 'x')],
    ['write to /var/lib', () => fs.writeFileSync('/var/lib/probe', 'x')],
    ['write to /run', () => fs.writeFileSync('/run/probe', 'x')],
    ['write its own program', () => fs.appendFileSync(process.argv[1] ?? '', '')],
    ['another device', () => fs.closeSync(fs.openSync('/dev/rngd-other', 'r+'))],
    ['write to /dev/hwrng', () => fs.closeSync(fs.openSync('/dev/hwrng', 'r+'))],
    ['the console', () => fs.closeSync(fs.openSync('/dev/console', 'w'))],
    ['set a kernel parameter', () => fs.writeFileSync('/proc/sys/vm/overcommit_memory', '1')],
    ['see process 1', () => fs.readFileSync('/proc/1/cmdline')],
    ['signal process 1', () => process.kill(1, 0)],
    ['become root', () => process.setuid?.(0)],
    ['a file that makes root', makeSetuid],
    ['a namespace of its own', () => spawned('unshare', '--user', 'true')],
    ['a mount', () => spawned('mount', '-t', 'tmpfs', 'none', '/tmp')],
    ['real-time scheduling', () => spawned('chrt', '--fifo', '1', 'true')],
    ['a core file limit', () => spawned('sh', '-c', 'ulimit -Hc unlimited')],
    ['the kernel log', () => spawned('dmesg')],
    ['another personality', () => spawned('setarch', '--addr-no-randomize', 'true')],
  ];
}

function readSome(path: string): void {
  const fd = fs.openSync(path, 'r');
  fs.readSync(fd, Buffer.alloc(16));
  fs.closeSync(fd);
}

/** Where no driver is behind the device, ENODEV comes after the policy. */
function openHwrng(): void {
  try {
    fs.closeSync(fs.openSync('/dev/hwrng', fs.constants.O_RDONLY | fs.constants.O_NONBLOCK));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENODEV') throw error;
  }
}

function lockMemory(): void {
  if (!Mapping.forSecrets(65536).locked) throw new Error('mlock was refused');
}

function makeSetuid(): void {
  fs.writeFileSync('/tmp/setuid', 'x');
  fs.chmodSync('/tmp/setuid', 0o4755);
}

function spawned(program: string, ...args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (error) throw error;
  if (status !== 0) throw new Error(stderr.trim());
}

function outcomeOf(attempt: () => unknown): string {
  try {
    attempt();
    return 'done';
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
}

/** Listening needs an answer of the event loop. */
function tryTcp(): Promise<string> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ port: 0, host: '127.0.0.1' }, () => {
      server.close();
      resolve('done');
    });
  });
}

async function main(folder: string): Promise<void> {
  const findings: Finding[] = [{ what: 'a TCP socket', allowed: false, outcome: await tryTcp() }];
  for (const [what, attempt] of allowedTries(folder))
    findings.push({ what, allowed: true, outcome: outcomeOf(attempt) });
  for (const [what, attempt] of deniedTries())
    findings.push({ what, allowed: false, outcome: outcomeOf(attempt) });
  process.stdout.write(`${PROBE_MARK}${JSON.stringify(findings)}\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main(process.argv[2] ?? '');
