// Reads a request's JSON strictly: what two readers could understand differently is refused, not guessed at.
import { Fault } from '../../protocol/fault.js';

/** Keys that reach the prototype of an object that is built from them carelessly. */
const FORBIDDEN_KEYS: readonly string[] = ['__proto__', 'constructor', 'prototype'];
/** No request has more than three. Ours. */
const MAX_DEPTH = 16;
const RAW_CONTROL = /[\u007f-\u009f]/g;
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s"{}[\],:]+/g;

/** JSON without the characters that a terminal would act on and JSON.stringify() lets through. */
export function escapeRaw(json: string): string {
  return json.replace(RAW_CONTROL, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** The value of a JSON text in UTF-8, or a fault that says what is wrong with it. */
export function parseJson(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return refuse('expected JSON in UTF-8, got other bytes');
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return refuse(`expected JSON, got ${error instanceof Error ? error.message : 'something else'}`);
  }
  return (
    checkKeys(text) ?? (isWellFormed(value) ? value : refuse('expected text, got half a character or NUL'))
  );
}

/** Looks for keys that stand twice in one object, which JSON.parse() takes silently; the text is known to be JSON. */
function checkKeys(text: string): Fault | undefined {
  const open: (Set<string> | undefined)[] = [];
  let previous = '';
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === '{') open.push(new Set());
    else if (token === '[') open.push(undefined);
    else if (token === '}' || token === ']') open.pop();
    else if (token === ':') {
      const key = JSON.parse(previous) as string;
      const keys = open.at(-1);
      if (FORBIDDEN_KEYS.includes(key)) return refuse(`expected a known field, got ${key}`);
      if (keys?.has(key) === true) return refuse(`expected each field once, got ${key} twice`);
      keys?.add(key);
    }
    if (open.length > MAX_DEPTH) return refuse(`expected at most ${MAX_DEPTH} levels, got more`);
    previous = token;
  }
  return undefined;
}

/** False when any string in it holds NUL or half of a surrogate pair. */
function isWellFormed(value: unknown): boolean {
  if (typeof value === 'string') return !value.includes('\0') && !/\p{Cs}/u.test(value);
  if (typeof value !== 'object' || value === null) return true;
  return Object.entries(value).every(([key, inner]) => isWellFormed(key) && isWellFormed(inner));
}

function refuse(message: string): Fault {
  return new Fault('request', 'bad_json', message);
}
