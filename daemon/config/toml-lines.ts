// Finds the line of a key in a TOML text. The parser tells positions of errors in the syntax only, and an operator wants
// them for wrong values too.
//
// It reads headers and the beginnings of lines, not values: within a string of several lines it may be misled, and then
// names a line near by.

/** Keys and places in lists, from the top: `['device', 1, 'max-bytes']`. */
export type KeyPath = readonly (string | number)[];

const HEADER = /^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?/;
const KEY = /^\s*("[^"]*"|'[^']*'|[A-Za-z0-9_-]+)((?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=/;

/** The line (from 1) of the key, or of the nearest table around it; undefined when not even that is found. */
export function lineOf(text: string, path: KeyPath): number | undefined {
  const counts = new Map<string, number>();
  let table: KeyPath = [];
  let best: { line: number; depth: number } | undefined;
  for (const [i, line] of text.split('\n').entries()) {
    const header = HEADER.exec(line);
    if (header !== null) table = tableOf(header[2] ?? '', header[1] === '[[', counts);
    const key = header === null ? KEY.exec(line) : null;
    if (header === null && key === null) continue;
    const here = key === null ? table : [...table, ...parts(`${key[1] ?? ''}${key[2] ?? ''}`)];
    if (isPrefix(here, path) && here.length > (best?.depth ?? 0)) best = { line: i + 1, depth: here.length };
  }
  return best?.line;
}

function tableOf(name: string, isList: boolean, counts: Map<string, number>): KeyPath {
  const keys = parts(name);
  const full = keys.join('.');
  if (isList) counts.set(full, (counts.get(full) ?? -1) + 1);
  return keys.flatMap((key, i) => {
    const count = counts.get(keys.slice(0, i + 1).join('.'));
    return count === undefined ? [key] : [key, count];
  });
}

function parts(dotted: string): string[] {
  return dotted.split('.').map((part) => part.trim().replace(/^["']|["']$/g, ''));
}

function isPrefix(prefix: KeyPath, path: KeyPath): boolean {
  return prefix.length <= path.length && prefix.every((key, i) => key === path[i]);
}
