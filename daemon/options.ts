// The command line: defined once, parsed by commander, checked here before anything is opened.
import { basename } from 'node:path';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { Fault } from '../protocol/fault.js';
import { MEMORY_POLICIES, type MemoryPolicy } from '../shared-memory/memory-region.js';
import { parseSourceSpec, type SourceSpec } from './entropy/source-spec.js';
import { LOG_FORMATS, LOG_LEVELS, type LogFormat } from './log.js';
import type { Limit } from './limiter.js';
import type { LogLevel } from './rng-device.js';

/** QEMU's default for `period`, which its users know. Source: QEMU, virtio-rng properties. */
const DEFAULT_PERIOD_MS = 65536;
/** Polling longer than this is a CPU given away, not a latency won. Ours. */
const MAX_BUSY_POLL_US = 1_000_000;
const MAX_SLOTS = 32;

/** What the command line asks for, checked. */
export interface Options {
  readonly socketPaths: readonly string[];
  readonly fd: number | undefined;
  readonly sources: readonly SourceSpec[];
  /** For each device, and for all of them together. */
  readonly limit: Limit | undefined;
  readonly total: Limit | undefined;
  readonly busyPollUs: number;
  readonly memory: { readonly memoryPolicy: MemoryPolicy; readonly memSlots: number };
  readonly socketMode: number;
  readonly socketGroup: string | undefined;
  readonly logFormat: LogFormat;
  readonly logLevel: LogLevel;
  /** XOR the kernel's bytes into those of the sources. */
  readonly mix: boolean;
  /** Leave the process open to debuggers and core files. */
  readonly debug: boolean;
}

/** As commander gives them. */
interface RawOptions {
  socketPath: string[];
  fd?: number;
  source: string[];
  allowTestSources: boolean;
  maxBytes?: number;
  period?: number;
  burstBytes?: number;
  totalMaxBytes?: number;
  totalPeriod?: number;
  busyPollUs: number;
  memory: MemoryPolicy;
  memSlots: number;
  socketMode: number;
  socketGroup?: string;
  logFormat: LogFormat;
  logLevel: LogLevel;
  mix: boolean;
  debug: boolean;
}

/** An integer from `least` to `most`, or commander's error that names the option. */
function integer(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < least || value > most) {
      throw new InvalidArgumentError(`expected an integer from ${least} to ${most}.`);
    }
    return value;
  };
}

function octalMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text)) throw new InvalidArgumentError('expected an octal mode such as 0660.');
  return parseInt(text, 8);
}

function busyPoll(text: string): number {
  return text === 'auto' ? 0 : integer(0, MAX_BUSY_POLL_US)(text);
}

function collect(value: string, earlier: string[]): string[] {
  return [...earlier, value];
}

/** The options as they are defined; `--help` is made from this. */
export function defineCommand(version: string): Command {
  const most = Number.MAX_SAFE_INTEGER;
  return new Command('vhost-rngd')
    .description('Gives virtual machines entropy: a vhost-user back-end for virtio-rng.')
    .version(version)
    .argument('[nothing...]', 'no arguments are taken')
    .option('--socket-path <path>', 'listen here for a VMM; may be repeated: one device each', collect, [])
    .option('--fd <n>', 'use an inherited socket, listening or connected, instead', integer(0, 2 ** 31 - 1))
    .option(
      '--source <spec>',
      'random[:PATH], hwrng[:PATH] or getrandom; may be repeated, best first',
      collect,
      [],
    )
    .option('--mix', "mix the kernel's bytes into those of the sources, by XOR", false)
    .option('--max-bytes <n>', 'give each device at most so many bytes in any period', integer(1, most))
    .option('--period <ms>', `length of the period (default: ${DEFAULT_PERIOD_MS})`, integer(1, 2 ** 31 - 1))
    .option('--burst-bytes <n>', 'give each device so many bytes more, once in its life', integer(0, most))
    .option(
      '--total-max-bytes <n>',
      'give all devices together at most so many bytes in any period, shared fairly',
      integer(1, most),
    )
    .option(
      '--total-period <ms>',
      `length of that period (default: ${DEFAULT_PERIOD_MS})`,
      integer(1, 2 ** 31 - 1),
    )
    .option(
      '--busy-poll-us <n>',
      'watch a ring for so long after a request; auto is 0 in this version',
      busyPoll,
      0,
    )
    .addOption(
      new Option(
        '--memory <policy>',
        'guest memory whose file can be shrunk: guard every access, refuse it, or trust the VMM',
      )
        .choices(MEMORY_POLICIES)
        .default('guard'),
    )
    .option(
      '--mem-slots <n>',
      'offer CONFIGURE_MEM_SLOTS with so many slots; 0: do not offer it',
      integer(0, MAX_SLOTS),
      0,
    )
    .addOption(
      new Option('--socket-mode <octal>', 'mode of the socket files')
        .argParser(octalMode)
        .default(0o660, '0660'),
    )
    .option('--socket-group <group>', 'group of the socket files, by name or number')
    .addOption(
      new Option('--log-format <format>', 'form of the log on standard error')
        .choices(LOG_FORMATS)
        .default('text'),
    )
    .addOption(
      new Option('--log-level <level>', 'least level that is logged').choices(LOG_LEVELS).default('info'),
    )
    .option('--debug', 'let debuggers attach and core files be written: they hold entropy', false)
    .option('--allow-test-sources', 'allow file:PATH as a source, which is no entropy', false)
    .option(
      '--print-capabilities',
      'print what vhost-user front-ends and management want to know, as JSON, and exit',
    )
    .exitOverride();
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
  return check(command.opts<RawOptions>());
}

function check(raw: RawOptions): Options | Fault {
  const { socketPath, fd } = raw;
  if (fd !== undefined && socketPath.length > 0) return usage('expected --socket-path or --fd, got both');
  if (fd !== undefined && fd < 3)
    return usage(`expected an inherited socket as --fd, got ${fd}, a standard stream`);
  if (socketPath.includes('')) return usage('expected a path with --socket-path, got nothing');
  const twice = socketPath.find((path, i) => socketPath.indexOf(path) !== i);
  if (twice !== undefined) return usage(`expected each --socket-path once, got ${twice} twice`);
  const sources = parseSources(raw);
  if (sources instanceof Fault) return sources;
  const limits = checkLimits(raw);
  if (limits instanceof Fault) return limits;
  return {
    socketPaths: socketPath,
    fd,
    sources,
    ...limits,
    busyPollUs: raw.busyPollUs,
    memory: { memoryPolicy: raw.memory, memSlots: raw.memSlots },
    socketMode: raw.socketMode,
    socketGroup: raw.socketGroup,
    logFormat: raw.logFormat,
    logLevel: raw.logLevel,
    mix: raw.mix,
    debug: raw.debug,
  };
}

function checkLimits(raw: RawOptions): Pick<Options, 'limit' | 'total'> | Fault {
  const { maxBytes, period, burstBytes, totalMaxBytes, totalPeriod } = raw;
  const needs = (option: string, needed: string): Fault =>
    usage(`expected ${needed} with ${option}, got ${option} alone`);
  if (maxBytes === undefined && period !== undefined) return needs('--period', '--max-bytes');
  if (maxBytes === undefined && burstBytes !== undefined) return needs('--burst-bytes', '--max-bytes');
  if (totalMaxBytes === undefined && totalPeriod !== undefined)
    return needs('--total-period', '--total-max-bytes');
  return {
    limit: maxBytes === undefined ? undefined : limitOf(maxBytes, period, burstBytes),
    total: totalMaxBytes === undefined ? undefined : limitOf(totalMaxBytes, totalPeriod),
  };
}

function limitOf(maxBytes: number, periodMs = DEFAULT_PERIOD_MS, burstBytes = 0): Limit {
  return { maxBytes, periodMs, burstBytes };
}

function parseSources(raw: RawOptions): SourceSpec[] | Fault {
  const sources: SourceSpec[] = [];
  for (const text of raw.source.length > 0 ? raw.source : ['random']) {
    const spec = parseSourceSpec(text, raw.allowTestSources);
    if (spec instanceof Fault) return spec;
    if (sources.some((other) => other.text === spec.text))
      return usage(`expected each --source once, got ${text} twice`);
    sources.push(spec);
  }
  return sources;
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
