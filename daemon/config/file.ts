// Reads a configuration file: TOML, checked whole before anything of it is used. What is wrong is said with file and line.
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { parse, TomlError } from 'smol-toml';
import * as v from 'valibot';
import { Fault } from '../../protocol/fault.js';
import { type ConfigFile, FileShape } from './file-schema.js';
import { firstIssue } from './issue.js';
import { lineOf, type KeyPath } from './toml-lines.js';

/** A file of 10 000 devices has half of it. Ours. */
const MAX_FILE_BYTES = 1 << 20;
const BOM = '\uFEFF';

/** A file's settings, and where each stands, for what is found to be wrong later. */
export interface ReadConfig {
  readonly file: ConfigFile;
  /** A fault that names file and line. */
  wrong(path: KeyPath, message: string): Fault;
}

/** Reads and checks `path`; a fault of scope `daemon` that names the line and what is expected there. */
export function readConfig(path: string): ReadConfig | Fault {
  const text = readText(path);
  if (text instanceof Fault) return text;
  const wrong = (at: KeyPath, message: string): Fault => configFault(path, lineOf(text, at), message);
  let value: unknown;
  try {
    value = parse(text, { maxDepth: 8 });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // The first line says what, the others show the place again.
    const [what = ''] = error.message.replace(/^Invalid TOML document: /, '').split('\n');
    return configFault(path, error.line, what);
  }
  const odd = inheritedKey(value);
  if (odd !== undefined) return wrong(odd, `expected a known key, got ${odd.join('.')}`);
  const checked = v.safeParse(FileShape, value, { abortEarly: true });
  if (checked.success) return { file: checked.output, wrong };
  const { path: at, message } = firstIssue(checked.issues[0]);
  return wrong(at, `${at.length === 0 ? '' : `${named(at)}: `}${message}${hint(at, message)}`);
}

/** `device[1].max-bytes` as an operator counts: the second device. */
function named(at: KeyPath): string {
  return at
    .map((key, i) => (typeof key === 'number' ? ` ${key + 1}` : `${i === 0 ? '' : '.'}${key}`))
    .join('')
    .replace(/(\d)\./, '$1: ');
}

/** Where an unknown key is a known one under another name. */
function hint(at: KeyPath, message: string): string {
  if (message !== 'expected a known key') return '';
  const key = String(at.at(-1) ?? '');
  const known = knownKeys(at).find((other) => simplified(other) === simplified(key));
  const list = knownKeys(at).join(', ');
  return known === undefined ? `: one of ${list}` : `: did you mean ${known}?`;
}

function simplified(key: string): string {
  return key
    .toLowerCase()
    .replace(/[-_]/g, '')
    .replace(/s$/, '')
    .replace(/(ms|socketpath)$/, '');
}

function knownKeys(at: KeyPath): readonly string[] {
  const [table] = at;
  if (at.length > 1 && table === 'device')
    return Object.keys(FileShape.entries.device.wrapped.pipe[0].item.entries);
  if (at.length > 1 && table === 'control') return Object.keys(FileShape.entries.control.wrapped.entries);
  return Object.keys(FileShape.entries);
}

/** A key that every object seems to have, so that the schema would take it for a known one. */
function inheritedKey(value: unknown, at: KeyPath = []): KeyPath | undefined {
  if (typeof value !== 'object' || value === null || value instanceof Date) return undefined;
  for (const [key, inner] of Object.entries(value)) {
    const here = [...at, Array.isArray(value) ? Number(key) : key];
    const found = !Array.isArray(value) && key in Object.prototype ? here : inheritedKey(inner, here);
    if (found !== undefined) return found;
  }
  return undefined;
}

function readText(path: string): string | Fault {
  try {
    // Non-blocking, so that a FIFO is an error and not a wait.
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) return configFault(path, undefined, 'expected a file, got something else');
      if (stat.size > MAX_FILE_BYTES) {
        return configFault(path, undefined, `expected at most ${MAX_FILE_BYTES} bytes, got ${stat.size}`);
      }
      return decoded(path, readFileSync(fd));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    const fix = code === 'EACCES' ? ': give the user of the daemon read permission' : '';
    return configFault(path, undefined, `reading it failed: ${code}${fix}`);
  }
}

function decoded(path: string, bytes: Buffer): string | Fault {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    return text.startsWith(BOM) ? text.slice(1) : text;
  } catch {
    return configFault(path, undefined, 'expected text in UTF-8, got other bytes');
  }
}

function configFault(path: string, line: number | undefined, message: string): Fault {
  return new Fault('daemon', 'config', `${path}${line === undefined ? '' : `:${line}`}: ${message}`);
}
