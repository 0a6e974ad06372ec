// Runs the host's own programs (apt-get, dpkg-deb, rngtest, lsof) to their end, with a deadline, and says plainly what failed.
import { execFile } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

interface ProgramResult {
  /** Exit code; undefined when a signal ended it. */
  readonly status: number | undefined;
  readonly stdout: Buffer;
  readonly stderr: string;
}

interface ProgramOptions {
  readonly cwd?: string;
  readonly input?: Buffer;
  /** Default 60 000. */
  readonly timeoutMs?: number;
}

/** Runs `program` to its end whatever its exit code is; rejects when it cannot be started. */
export function runProgram(
  program: string,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<ProgramResult> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      program,
      args,
      {
        encoding: 'buffer',
        env: { ...process.env, LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' },
        killSignal: 'SIGKILL',
        maxBuffer: 256 * 1024 * 1024,
        timeout: options.timeoutMs ?? 60_000,
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      },
      (error, stdout, stderr) => {
        if (error !== null && typeof error.code === 'string')
          reject(new Error(`cannot run ${program}: ${error.code}`));
        else resolve({ status: child.exitCode ?? undefined, stdout, stderr: stderr.toString() });
      },
    );
    // A program may end before it has read its whole input; its exit code tells the story then.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(options.input);
  });
}

/** Gives the standard output of a program that must succeed; throws with its messages when it does not. */
export async function outputOf(
  program: string,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<Buffer> {
  const { status, stdout, stderr } = await runProgram(program, args, options);
  if (status === 0) return stdout;
  const ending = status === undefined ? 'was ended by a signal' : `exited with ${status}`;
  throw new Error(`${program} ${args.join(' ')} ${ending}:\n${stderr.trim()}`);
}

/** The full path of a program, looked for in PATH and where a plain user's PATH does not reach. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin', '/usr/local/sbin'];
  return folders
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, name))
    .find((path) => isExecutable(path));
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
