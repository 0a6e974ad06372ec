// The documents against the sources: every error code is listed, every option is described, and nothing else is.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { defineCommand } from '../daemon/options.js';

/** The checkout, seen from this file's compiled place. */
const ROOT = fileURLToPath(new URL('../../', import.meta.url));

function read(...path: readonly string[]): string {
  return readFileSync(join(ROOT, ...path), 'utf8');
}

function sources(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => read(folder, name));
}

const CODE_PATTERNS = [
  /new Fault\(\s*'\w+',\s*'(\w+)'/g,
  /refuse\(\s*'(\w+)',/g,
  /\b(?:log|tell)\(\s*'\w+',\s*'(\w+)'/g,
  /code: '(\w+)'/g,
  /\blogChange\(\s*peer,\s*'(\w+)'/g,
  /\blog\(level, '(\w+)'/g,
  /super\('request', '(\w+)'/g,
  // The fd kinds that vring.ts refuses for two roles.
  /notSignallable\(fd, '(\w+)'\)/g,
];

t.test('ARCHITECTURE.md lists every code of an error or log line, and no other', (t) => {
  const text = ['protocol', 'shared-memory', 'daemon'].flatMap(sources).join('\n');
  const inSources = new Set<string>();
  for (const pattern of CODE_PATTERNS) {
    for (const match of text.matchAll(pattern)) {
      const code = match[1] ?? '';
      inSources.add(pattern.source.startsWith('notSignallable') ? `${code}_fd_kind` : code);
    }
  }
  // source-spec.ts has a helper of one argument, whose code stands in its own `new Fault`.
  const section = /## Codes\n([\s\S]*?)\n## /.exec(read('ARCHITECTURE.md'))?.[1] ?? '';
  const listed = new Set([...section.matchAll(/`(\w+)`/g)].map((match) => match[1] ?? ''));
  t.ok(inSources.size > 60, `codes were found in the sources: ${inSources.size}`);
  t.same([...inSources].filter((code) => !listed.has(code)).sort(), [], 'missing in ARCHITECTURE.md');
  t.same([...listed].filter((code) => !inSources.has(code)).sort(), [], 'in ARCHITECTURE.md only');
  t.end();
});

t.test('README.md has every option of the command line in its table, and no other', (t) => {
  const section = /## Options\n([\s\S]*?)\n## /.exec(read('README.md'))?.[1] ?? '';
  const described = new Set(
    [...section.matchAll(/^\|(.*?)\|/gm)].flatMap(([cell]) =>
      [...cell.matchAll(/--[a-z][a-z-]+/g)].map(([option]) => option),
    ),
  );
  const defined = defineCommand('0').options.map(({ long }) => long ?? '');
  t.same([...described].sort(), [...defined, '--help'].sort());
  t.end();
});

t.test('the README says nothing of a figure that is not there', (t) => {
  t.notMatch(read('README.md'), /\bFIGURES\b/);
  t.end();
});
