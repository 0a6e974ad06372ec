// Installs Debian packages for the demo, when that needs no password: as root, or by a sudo that asks for none.
import { spawn } from 'node:child_process';
import { findProgram, runProgram } from './program.js';

/** Installs the packages, showing apt's own progress; false when only the user can, or when apt fails. */
export async function installPackages(packages: readonly string[]): Promise<boolean> {
  const prefix = await rootPrefix();
  if (prefix === undefined || findProgram('apt-get') === undefined) return false;
  const install = ['apt-get', 'install', '-y', '--no-install-recommends', ...packages];
  // A first try fails where the lists are missing or old, as in a fresh container.
  return (
    (await succeeds([...prefix, ...install])) ||
    ((await succeeds([...prefix, 'apt-get', 'update'])) && (await succeeds([...prefix, ...install])))
  );
}

/** What goes before a command to run it as root; undefined when that takes a password. */
async function rootPrefix(): Promise<readonly string[] | undefined> {
  const environment = ['env', 'DEBIAN_FRONTEND=noninteractive'];
  if (process.getuid?.() === 0) return environment;
  if (findProgram('sudo') === undefined) return undefined;
  const { status } = await runProgram('sudo', ['-n', 'true']);
  return status === 0 ? ['sudo', '-n', ...environment] : undefined;
}

function succeeds([program = 'false', ...args]: readonly string[]): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', () => resolve(false));
    child.on('close', (code) => resolve(code === 0));
  });
}
