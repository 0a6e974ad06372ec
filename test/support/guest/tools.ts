// What a host needs to run real guests, and the one command that installs what is missing.
import { findProgram } from './program.js';

interface Tool {
  readonly program: string;
  readonly debianPackage: string;
}

/** QEMU is all that a guest needs of the host: kernel and busybox are downloaded without being installed. */
const EMULATOR: Tool = { program: 'qemu-system-x86_64', debianPackage: 'qemu-system-x86' };

/** Second opinions on what the tests find out by themselves; they do without when these are missing. */
const WITNESSES: readonly Tool[] = [
  { program: 'rngtest', debianPackage: 'rng-tools5' },
  { program: 'lsof', debianPackage: 'lsof' },
];

/** The Debian packages, without root's command, that this host lacks to boot a guest and to judge its bytes. */
export function missingPackages(): readonly string[] {
  return [EMULATOR, ...WITNESSES].filter((tool) => isMissing(tool)).map((tool) => tool.debianPackage);
}

/** The one command to type when no guest can be booted here; undefined when one can. */
export function guestToolsMissing(): string | undefined {
  return isMissing(EMULATOR) ? installCommand(missingPackages()) : undefined;
}

/** The command line that installs Debian packages, as one types it. */
function installCommand(packages: readonly string[]): string {
  return `sudo apt-get install --no-install-recommends ${packages.join(' ')}`;
}

function isMissing(tool: Tool): boolean {
  return findProgram(tool.program) === undefined;
}
