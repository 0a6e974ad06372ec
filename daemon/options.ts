// The command line: defined once, parsed by commander, checked here before anything is opened. Its values are checked by the
// schemas of the configuration file, whose keys have the names of the options.
import { basename } from 'node:path';
import { Command, CommanderError, Option } from 'commander';
import * as v from 'valibot';
import { Fault } from '../protocol/fault.js';
import { inheritedFd } from './config/fields.js';
import { ControlTableShape, type General, GeneralShape } from './config/file-schema.js';
import { firstIssue } from './config/issue.js';
import { DEFAULT_PERIOD_MS } from './config/device-settings.js';
import type { CommandLine } from './config/settings.js';
import { LOG_FORMATS, LOG_LEVELS } from './log.js';
import { MEMORY_POLICIES } from '../shared-memory/memory-region.js';

/** What the command line asks for. */
export interface Options extends CommandLine {
  /** Check the configuration, say so, and exit. */
  readonly checkConfig: boolean;
  /** The control socket of a daemon that this one takes over from. */
  readonly takeover: string | undefined;
}

/** Options that are no settings of the file, and what they are there. */
const CONTROL_OPTIONS: Readonly<Record<string, string>> = {
  'control-socket': 'socket',
  'control-group': 'group',
  'control-admins': 'admins',
  'control-readers': 'readers',
};

/** What the daemon exits with, for the manual. Source: sysexits.h. */
export const EXIT_MEANINGS: readonly (readonly [number, string])[] = [
  [0, 'it was told to stop, or has done what was asked'],
  [64, 'the command line is wrong'],
  [70, 'a bug in vhost-rngd, or too few open files'],
  [75, 'another daemon still keeps the state file, or serves on after --takeover'],
  [78, 'the configuration cannot be used: a path, a source, a permission; nothing was opened'],
];

/** A number where the text is one; anything else stays as it is, for the schema to refuse. */
function number(text: string): number | string {
  return /^\d+$/.test(text) ? Number(text) : text;
}

function collect(value: string, earlier: readonly string[] = []): readonly string[] {
  return [...earlier, value];
}

function list(text: string): readonly string[] {
  return text.split(',').map((part) => part.trim());
}

/** The options as they are defined; `--help` is made from this. */
export function defineCommand(version: string): Command {
  const command = new Command('vhost-rngd')
    .description('Gives virtual machines entropy: a vhost-user back-end for virtio-rng.')
    .version(version)
    .argument('[nothing...]', 'no arguments are taken')
    .option('--config <file>', 'settings in TOML; options replace what stands at its top')
    .option('--check-config', 'check the configuration, say what is wrong with it, and exit');
  defineDevices(command);
  defineProcess(command);
  return command
    .option(
      '--takeover <control-socket>',
      'go on with the guests of the daemon that answers there, which ends; with its user and its devices',
    )
    .option('--debug', 'let debuggers attach and core files be written: they hold entropy')
    .option('--allow-test-sources', 'allow file:PATH as a source, which is no entropy')
    .option(
      '--print-capabilities',
      'print what vhost-user front-ends and management want to know, as JSON, and exit',
    )
    .exitOverride();
}

function defineDevices(command: Command): void {
  command
    .option('--socket-path <path>', 'listen here for a VMM; may be repeated: one device each', collect)
    .option('--fd <n>', 'use an inherited socket, listening or connected, instead', number)
    .option(
      '--source <spec>',
      'random[:PATH], hwrng[:PATH], getrandom, rdrand, rdseed, jitter or egd:ADDRESS; may be repeated, best first',
      collect,
    )
    .option('--mix', "mix the kernel's bytes into those of the sources, by XOR")
    .option('--max-bytes <n>', 'give each device at most so many bytes in any period', number)
    .option('--period <ms>', `length of the period (default: ${DEFAULT_PERIOD_MS})`, number)
    .option('--burst-bytes <n>', 'give each device so many bytes more, once in its life', number)
    .option(
      '--total-max-bytes <n>',
      'give all devices together at most so many bytes in any period, shared fairly',
      number,
    )
    .option('--total-period <ms>', `length of that period (default: ${DEFAULT_PERIOD_MS})`, number)
    .option(
      '--busy-poll-us <n>',
      'watch a ring for so long after a request; auto is 0 in this version (default: 0)',
      number,
    )
    .addOption(
      new Option(
        '--memory <policy>',
        'guest memory whose file can be shrunk: guard every access, refuse it, or trust the VMM (default: "guard")',
      ).choices(MEMORY_POLICIES),
    )
    .option(
      '--mem-slots <n>',
      'offer CONFIGURE_MEM_SLOTS with so many slots; 0: do not offer it (default: 0)',
      number,
    )
    .option(
      '--connections <n>',
      'front-ends that a socket serves at a time, each with its own ring, within the limit of the device (default: 1)',
      number,
    )
    .option('--socket-mode <octal>', 'mode of the socket files (default: 0660)')
    .option('--socket-group <group>', 'group of the socket files, by name or number');
}

function defineProcess(command: Command): void {
  command
    .option('--control-socket <path>', 'answer health checks, metrics and vhost-rngctl here')
    .option('--control-group <group>', 'group of the control socket: its members may look')
    .option(
      '--control-admins <users>',
      'users who may change things, besides root and ours; with commas',
      list,
    )
    .option('--control-readers <users>', 'users who may look, if not whoever may connect; with commas', list)
    .option('--state-file <path>', 'keep changes by the control socket here, for the next start')
    .addOption(
      new Option('--log-format <format>', 'form of the log on standard error (default: "text")').choices(
        LOG_FORMATS,
      ),
    )
    .addOption(
      new Option('--log-level <level>', 'least level that is logged (default: "info")').choices(LOG_LEVELS),
    );
}

/**
 * Parses the command line (without node and script).
 *
 * Gives the options, a fault whose message is for the user (commander has then printed it or it is to be printed), or
 * an exit status when commander has already done what was asked (`--help`, `--version`).
 */
export function parseOptions(args: readonly string[], version: string): Options | Fault | number {
  const command = defineCommand(version).configureOutput({ outputError: () => undefined });
  try {
    command.parse(args, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    return error.exitCode === 0 ? 0 : usage(error.message.replace(/^error: /, ''));
  }
  const [surplus] = command.args;
  if (surplus !== undefined) return usage(`expected options only, got '${surplus}'`);
  const values = new Map<string, unknown>();
  for (const option of command.options) {
    const value: unknown = command.getOptionValue(option.attributeName());
    if (value !== undefined) values.set(option.long?.slice(2) ?? '', value);
  }
  return check(values);
}

function check(values: Map<string, unknown>): Options | Fault {
  const socketPaths = (values.get('socket-path') ?? []) as readonly string[];
  const fd = values.has('fd') ? checked(inheritedFd, values.get('fd'), 'fd') : undefined;
  if (fd instanceof Fault) return fd;
  if (fd !== undefined && socketPaths.length > 0) return usage('expected --socket-path or --fd, got both');
  if (fd !== undefined && fd < 3)
    return usage(`expected an inherited socket as --fd, got ${fd}, a standard stream`);
  if (socketPaths.includes('')) return usage('expected a path with --socket-path, got nothing');
  const twice = socketPaths.find((path, i) => socketPaths.indexOf(path) !== i);
  if (twice !== undefined) return usage(`expected each --socket-path once, got ${twice} twice`);
  const general = generalOf(values);
  if (general instanceof Fault) return general;
  const control = checked(ControlTableShape, controlOf(values), 'control');
  if (control instanceof Fault) return control;
  const configFile = values.get('config') as string | undefined;
  const checkConfig = values.has('check-config');
  if (checkConfig && configFile === undefined)
    return usage('expected --config with --check-config, got none');
  const names = deviceNames(socketPaths);
  const devices = socketPaths.map((socketPath, i) => ({ name: names[i] ?? socketPath, socketPath }));
  const takeover = values.get('takeover') as string | undefined;
  if (takeover !== undefined && fd !== undefined)
    return usage('expected devices by their paths with --takeover, got --fd');
  return { general, control, devices, fd, configFile, checkConfig, takeover };
}

function generalOf(values: Map<string, unknown>): General | Fault {
  const given = Object.keys(GeneralShape.entries).filter((key) => values.has(key));
  const sources = values.get('source');
  return checked(
    GeneralShape,
    {
      ...Object.fromEntries(given.map((key) => [key, values.get(key)])),
      ...(sources !== undefined && { sources }),
    },
    undefined,
  );
}

function controlOf(values: Map<string, unknown>): Record<string, unknown> {
  const given = Object.entries(CONTROL_OPTIONS).filter(([option]) => values.has(option));
  return Object.fromEntries(given.map(([option, key]) => [key, values.get(option)]));
}

/** The checked value, or a fault that names the option; `about` names it where the value is not an object of options. */
function checked<T extends v.GenericSchema>(
  schema: T,
  value: unknown,
  about: string | undefined,
): v.InferOutput<T> | Fault {
  const parsed = v.safeParse(schema, value, { abortEarly: true });
  if (parsed.success) return parsed.output;
  const { path, message } = firstIssue(parsed.issues[0]);
  const key = [...(about === undefined ? [] : [about]), ...path.filter((part) => typeof part === 'string')];
  return usage(`--${key.join('-')}: ${message}`);
}

/** Names devices after their sockets: `/run/rng0.sock` is `rng0`; where that is not unique, the whole path. */
export function deviceNames(socketPaths: readonly string[]): string[] {
  const names = socketPaths.map((path) => basename(path).replace(/\.sock(et)?$/, ''));
  return names.map((name, i) =>
    names.filter((other) => other === name).length > 1 ? (socketPaths[i] ?? name) : name,
  );
}

function usage(message: string): Fault {
  return new Fault('daemon', 'usage', message);
}
