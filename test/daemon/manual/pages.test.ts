// The manual pages: complete, whatever is defined, and in order for a formatter.
import { spawnSync } from 'node:child_process';
import type { Command } from 'commander';
import t from 'tap';
import { configSchema } from '../../../daemon/config/config-schema.js';
import { COMPLETE_COMMAND } from '../../../daemon/ctl/completion.js';
import { EXIT_STATUSES } from '../../../daemon/ctl/exit-status.js';
import { defineCtl } from '../../../daemon/ctl/program.js';
import { manualPages } from '../../../daemon/manual/pages.js';
import { ManualPage, roffText } from '../../../daemon/manual/roff.js';
import { defineCommand, EXIT_MEANINGS } from '../../../daemon/options.js';

const pages = manualPages('1.2.3', '2026-01-31');

function textOf(name: string): string {
  return pages.find((page) => page.name === name)?.text ?? '';
}

/** Terms of a page, as `.TP` gives them, and its subheadings. */
function termsOf(name: string): string[] {
  const text = textOf(name).replaceAll('\\-', '-');
  const terms = [...text.matchAll(/^\\fB(.*)\\fR$/gm), ...text.matchAll(/^\.SS "(.*)"$/gm)];
  return terms.map(([, term = '']) => term);
}

function allOptions(command: Command): string[] {
  const own = command.options.filter(({ hidden }) => !hidden).map(({ flags }) => flags);
  return [...own, ...command.commands.flatMap(allOptions)];
}

function allCommands(command: Command, before = ''): string[] {
  return command.commands
    .filter((inner) => inner.name() !== COMPLETE_COMMAND)
    .flatMap((inner) => [`${before}${inner.name()}`, ...allCommands(inner, `${before}${inner.name()} `)]);
}

t.test('vhost-rngd(1) has every option and every exit status', (t) => {
  const terms = termsOf('vhost-rngd');
  for (const flags of allOptions(defineCommand('0'))) t.ok(terms.includes(flags), flags);
  for (const [status] of EXIT_MEANINGS) t.ok(terms.includes(String(status)), `status ${status}`);
  t.match(textOf('vhost-rngd'), /^\.TH "VHOST\\-RNGD" "1" "2026-01-31" "vhost\\-rngd 1.2.3"/);
  t.end();
});

t.test('vhost-rngctl(1) has every command, every option and every exit status', (t) => {
  const program = defineCtl('0', () => () => Promise.resolve());
  const terms = termsOf('vhost-rngctl');
  const commands = allCommands(program);
  t.ok(commands.length > 15);
  for (const name of commands)
    t.ok(
      terms.some((term) => term === name || term.startsWith(`${name} <`) || term.startsWith(`${name} [`)),
      name,
    );
  for (const flags of allOptions(program)) t.ok(terms.includes(flags), flags);
  for (const [status] of EXIT_STATUSES) t.ok(terms.includes(String(status)), `status ${status}`);
  t.end();
});

/** Keys of a schema and of the tables within, each with its description. */
function keysOf(schema: unknown): { key: string; description: unknown }[] {
  const { properties, items } = schema as { properties?: Record<string, unknown>; items?: unknown };
  const own = Object.entries(properties ?? {}).map(([key, property]) => ({
    key,
    description: (property as { description?: unknown }).description,
  }));
  return [
    ...own,
    ...Object.values(properties ?? {}).flatMap(keysOf),
    ...(items === undefined ? [] : keysOf(items)),
  ];
}

t.test('vhost-rngd.toml(5) has every key, and each has a description', (t) => {
  const text = textOf('vhost-rngd.toml').replaceAll('\\-', '-');
  const terms = termsOf('vhost-rngd.toml');
  const keys = keysOf(configSchema());
  t.ok(keys.length > 30);
  for (const { key, description } of keys) {
    t.type(description, 'string', `${key} is described`);
    const isTable = key === 'device' || key === 'control';
    t.ok(isTable ? text.includes(`[${key}]`) : terms.some((term) => term.startsWith(`${key} = `)), key);
  }
  t.end();
});

t.test('no character of a text is taken for a command of roff', (t) => {
  t.equal(roffText("a\\b -- .c 'd'"), 'a\\eb \\-\\- .c \\(aqd\\(aq');
  t.equal(roffText('.SH x\n.PP'), '\\&.SH x\n\\&.PP');
  const about = { summary: 's', date: '2026-01-31', source: 'x', title: 'y' };
  const page = new ManualPage('p', 1, about);
  page.heading('A "quoted" heading');
  t.match(page.text, /^\.SH "A \\\(dqquoted\\\(dq heading"$/m);
  t.end();
});

t.test('a formatter finds nothing to complain of', (t) => {
  for (const page of pages) {
    const lint = spawnSync('mandoc', ['-Tlint', '-Wwarning'], { input: page.text, encoding: 'utf8' });
    t.equal(lint.error, undefined, 'mandoc is there (apt-get install mandoc)');
    t.equal(lint.stdout, '', page.name);
    t.equal(lint.status, 0);
  }
  t.end();
});
