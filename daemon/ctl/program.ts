// vhost-rngctl's command line: every command is defined here or in the files of its kind; help, manual and completion are made
// of these definitions.
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { Fault } from '../../protocol/fault.js';
import { packageVersion } from '../version.js';
import { addDeviceCommands } from './change-commands.js';
import { CONTROL_SOCKET_VARIABLE, ControlClient } from './client.js';
import { COMPLETE_COMMAND, completions } from './completion.js';
import { doctor, SERVICE_CONFIG } from './doctor.js';
import { ExitStatus, EXIT_STATUSES, exitStatusOf } from './exit-status.js';
import { thisHost } from './host.js';
import { addLookCommands, type Run } from './look-commands.js';
import { type Output, printable, processOutput, toned } from './output.js';
import { addPasteCommands } from './paste-commands.js';
import { CONTROL_SOCKET } from '../systemd/unit-names.js';
import type { Session } from './session.js';
import { addSourceCommands } from './source-commands.js';
import { top } from './top.js';

interface GlobalOptions {
  readonly controlSocket?: string;
  readonly json?: boolean;
}

/** The program as it is defined; `run` makes actions of commands. */
export function defineCtl(version: string, run: Run): Command {
  const program = new Command('vhost-rngctl')
    .description('Asks and changes a running vhost-rngd over its control socket.')
    .version(version)
    .option(
      '--control-socket <path>',
      `where the daemon answers (default: $${CONTROL_SOCKET_VARIABLE} or ${CONTROL_SOCKET})`,
    )
    .option('--json', "give the daemon's JSON instead of text")
    .configureHelp({ showGlobalOptions: true })
    .addHelpText('after', `\nExit status:\n${exitStatusHelp()}`)
    .exitOverride();
  addLookCommands(program, run);
  addDeviceCommands(program, run);
  addSourceCommands(program, run);
  addPasteCommands(program, run);
  const live = program
    .command('top')
    .option('--interval <seconds>', 'time between two looks', seconds, 1)
    .option('--once', 'print one look and end, as without a terminal')
    .description('a live view: rates, limits, sources; q ends it')
    .action(
      run((session) => {
        const { interval, once = false } = live.opts<{ interval: number; once?: boolean }>();
        return top(session, { intervalMs: interval * 1000, once });
      }),
    );
  const examine = program
    .command('doctor')
    .option('--config <file>', `configuration to look at (default: ${SERVICE_CONFIG})`)
    .description('look over this host and the daemon, and name the fixes')
    .action(run((session) => doctor(session, thisHost, examine.opts<{ config?: string }>().config)));
  program
    .command(COMPLETE_COMMAND, { hidden: true })
    .argument('[words...]')
    .action(run((session, ...words) => complete(program, session, words)));
  return program;
}

const LEAST_INTERVAL_S = 0.1;
const MOST_INTERVAL_S = 3600;

function seconds(text: string): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : NaN;
  if (value >= LEAST_INTERVAL_S && value <= MOST_INTERVAL_S) return value;
  throw new InvalidArgumentError(`expected ${LEAST_INTERVAL_S} to ${MOST_INTERVAL_S}.`);
}

/** Who waits for Tab does not wait long. */
const COMPLETION_TIMEOUT_MS = 500;
const CONTROL_OPTION = '--control-socket';

function exitStatusHelp(): string {
  return EXIT_STATUSES.map(([status, meaning]) => `  ${String(status).padEnd(4)}${meaning}\n`).join('');
}

async function complete(
  program: Command,
  { client, output }: Session,
  words: readonly string[],
): Promise<typeof ExitStatus.Ok> {
  const asked = new ControlClient(controlSocketIn(words) ?? client.socketPath, COMPLETION_TIMEOUT_MS);
  const found = await completions(program, words, asked);
  output.out(found.map((word) => `${word}\n`).join(''));
  return ExitStatus.Ok;
}

/** The control socket that a line that is being written names. */
function controlSocketIn(words: readonly string[]): string | undefined {
  const at = words.findIndex((word) => word === CONTROL_OPTION || word.startsWith(`${CONTROL_OPTION}=`));
  const [, value = words[at + 1]] = words[at]?.split(/=(.*)/s) ?? [];
  return at < 0 || value === '' ? undefined : value;
}

/** Runs the command line (without node and script); the exit status. */
export async function runCtl(args: readonly string[]): Promise<ExitStatus> {
  const output = processOutput();
  const stopped = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stopped.abort());
  let status: ExitStatus = ExitStatus.Ok;
  const run: Run = (command) => async () => {
    const words = current.args;
    const outcome = await command(sessionOf(program, output, stopped.signal), ...words);
    if (outcome instanceof Fault) tell(output, `${printable(outcome.message)} [${outcome.code}]`);
    status = outcome instanceof Fault ? exitStatusOf(outcome) : outcome;
  };
  let current: Command = new Command();
  const program = defineCtl(packageVersion(), run);
  program.hook('preAction', (_program, action) => void (current = action));
  silence(program);
  try {
    await program.parseAsync([...args], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return ExitStatus.Ok;
    tell(output, error.code === 'commander.help' ? '' : error.message.replace(/^error: /, ''));
    return ExitStatus.Usage;
  }
  return status;
}

/** Errors of commander are told by ourselves, so that they look like all others. */
function silence(command: Command): void {
  command.exitOverride().configureOutput({ outputError: () => undefined });
  for (const inner of command.commands) silence(inner);
}

function sessionOf(program: Command, output: Output, until: AbortSignal): Session {
  const { controlSocket, json = false } = program.opts<GlobalOptions>();
  const path = controlSocket ?? process.env[CONTROL_SOCKET_VARIABLE] ?? CONTROL_SOCKET;
  return { client: new ControlClient(path), json, output, until };
}

function tell(output: Output, message: string): void {
  if (message !== '')
    output.err(`${toned({ colours: output.errorColours }, 'bad', 'vhost-rngctl:')} ${message}\n`);
}
