// The manual pages, made of the definitions that the programs themselves go by: commander's options and commands, the exit
// statuses, and the schema of the configuration file.
import type { Command } from 'commander';
import { configSchema } from '../config/config-schema.js';
import type { JsonSchema } from '../config/json-schema.js';
import { CONTROL_SOCKET_VARIABLE } from '../ctl/client.js';
import { COMPLETE_COMMAND } from '../ctl/completion.js';
import { EXIT_STATUSES } from '../ctl/exit-status.js';
import { defineCtl } from '../ctl/program.js';
import { defineCommand, EXIT_MEANINGS } from '../options.js';
import { CONTROL_SOCKET } from '../systemd/unit-names.js';
import { ManualPage } from './roff.js';

const TITLE = 'Entropy for virtual machines';

const SIGNALS: readonly (readonly [string, string])[] = [
  ['SIGTERM, SIGINT', 'stop serving, remove the socket files, and exit with status 0'],
  [
    'SIGHUP',
    'read the configuration file again, and try failed sources again, also those that have failed for good',
  ],
];

/** What all pages say of themselves. */
interface Edition {
  readonly date: string;
  readonly source: string;
  readonly title: string;
}

/** All pages, for a version of the programs and a date as YYYY-MM-DD. */
export function manualPages(version: string, date: string): ManualPage[] {
  const edition = { date, source: `vhost-rngd ${version}`, title: TITLE };
  return [daemonPage(version, edition), clientPage(version, edition), configPage(edition)];
}

function daemonPage(version: string, edition: Edition): ManualPage {
  const command = defineCommand(version);
  const summary = 'give virtual machines entropy: a vhost-user back-end for virtio-rng';
  const page = new ManualPage('vhost-rngd', 1, { summary, ...edition });
  page.synopsis(['vhost-rngd [OPTIONS]']);
  page.heading('DESCRIPTION');
  page.paragraph(
    'vhost-rngd is the device half of virtio-rng, outside of the VMM. It listens on a Unix socket for each device, speaks vhost-user with ' +
      "the VMM that connects, and fills the guest's requests from sources of entropy whose every byte has been tested, within the limits of each device.",
  );
  page.heading('OPTIONS');
  options(page, command);
  page.entry('-h, --help', 'display help for command');
  page.heading('SIGNALS');
  for (const [signal, meaning] of SIGNALS) page.entry(signal, meaning);
  page.heading('EXIT STATUS');
  for (const [status, meaning] of EXIT_MEANINGS) page.entry(String(status), meaning);
  page.heading('FILES');
  page.entry('/etc/vhost-rngd/config.toml', 'configuration of the service; see vhost-rngd.toml(5)');
  page.entry('/run/vhost-rngd', 'sockets of the service');
  page.heading('EXAMPLES');
  page.paragraph(
    'One device from the hardware generator, with the kernel behind it, at most 64 KiB a second:',
  );
  page.example(
    'vhost-rngd --socket-path=/run/vhost-rngd/web1.sock --source=hwrng --source=random --max-bytes=65536 --period=1000',
  );
  page.paragraph('All devices of a host, from a file:');
  page.example('vhost-rngd --config=/etc/vhost-rngd/config.toml');
  page.seeAlso([
    ['vhost-rngctl', 1],
    ['vhost-rngd.toml', 5],
    ['random', 4],
  ]);
  return page;
}

function clientPage(version: string, edition: Edition): ManualPage {
  const program = defineCtl(version, () => () => Promise.resolve());
  const page = new ManualPage('vhost-rngctl', 1, {
    summary: 'look at and change a running vhost-rngd',
    ...edition,
  });
  page.synopsis(['vhost-rngctl [OPTIONS] COMMAND [ARGUMENTS]']);
  page.heading('DESCRIPTION');
  page.paragraph(
    'vhost-rngctl asks the control socket of vhost-rngd. Whoever may open the socket may look; changing is for root, the user of the daemon, ' +
      'and the admins of its configuration. A change is in force when the command returns.',
  );
  page.heading('OPTIONS');
  options(page, program);
  page.entry('-h, --help', 'display help for command');
  page.heading('COMMANDS');
  for (const command of program.commands) describe(page, command, '');
  page.heading('FILES');
  page.entry(CONTROL_SOCKET, 'the control socket of the service');
  page.heading('ENVIRONMENT');
  page.entry(CONTROL_SOCKET_VARIABLE, 'the control socket, where no option names it');
  page.entry('NO_COLOR, FORCE_COLOR', 'never, and always, colours; without them a terminal decides');
  page.heading('EXIT STATUS');
  for (const [status, meaning] of EXIT_STATUSES) page.entry(String(status), meaning);
  page.heading('EXAMPLES');
  page.example(
    'vhost-rngctl top\nvhost-rngctl set web1 --max-bytes=32768\nvhost-rngctl health || mail -s "no entropy" root',
  );
  page.seeAlso([
    ['vhost-rngd', 1],
    ['vhost-rngd.toml', 5],
  ]);
  return page;
}

/** A command, its options, and the commands below it. */
function describe(page: ManualPage, command: Command, before: string): void {
  if (command.name() === COMPLETE_COMMAND || command.name() === 'help') return;
  const name = `${before}${command.name()}`;
  const words = command.registeredArguments.map((argument) => {
    const word = argument.variadic ? `${argument.name()}...` : argument.name();
    return argument.required ? ` <${word}>` : ` [${word}]`;
  });
  page.subheading(`${name}${words.join('')}`);
  page.paragraph(sentence(command.description()));
  options(page, command);
  for (const inner of command.commands) describe(page, inner, `${name} `);
}

function options(page: ManualPage, command: Command): void {
  for (const option of command.options)
    if (!option.hidden) page.entry(option.flags, sentence(option.description));
}

function configPage(edition: Edition): ManualPage {
  const summary = 'configuration of vhost-rngd';
  const page = new ManualPage('vhost-rngd.toml', 5, { summary, ...edition });
  page.synopsis(['/etc/vhost-rngd/config.toml']);
  page.heading('DESCRIPTION');
  page.paragraph(
    'A file in TOML. Keys have the names of the options of vhost-rngd, and their defaults; an option replaces what stands at the top of the file. ' +
      'A mistake is refused with its line before anything is opened. SIGHUP, or vhost-rngctl reload, reads the file again: all of it or, when something is wrong, nothing.',
  );
  const schema = configSchema();
  page.heading('KEYS AT THE TOP');
  keys(page, schema);
  page.heading('DEVICES');
  page.paragraph(
    'A [[device]] table for each device. What stands at the top for all devices may stand in it for this one.',
  );
  keys(page, inner(propertiesOf(schema)['device'])['items']);
  page.heading('CONTROL SOCKET');
  page.paragraph('A [control] table.');
  keys(page, propertiesOf(schema)['control']);
  page.heading('FILES');
  page.entry('/etc/vhost-rngd/config.toml', 'the configuration of the service');
  page.heading('EXAMPLES');
  page.example(
    [
      'sources = ["hwrng", "random"]',
      '',
      '[control]',
      'socket = "/run/vhost-rngd/control.sock"',
      '',
      '[[device]]',
      'name = "web1"',
      'socket-path = "/run/vhost-rngd/web1.sock"',
      'max-bytes = 65536',
      'period = 1000',
    ].join('\n'),
  );
  page.seeAlso([
    ['vhost-rngd', 1],
    ['vhost-rngctl', 1],
  ]);
  return page;
}

/** The keys of one table, but not the tables within. */
function keys(page: ManualPage, schema: unknown): void {
  for (const [key, property] of Object.entries(propertiesOf(schema))) {
    const { description, items, type } = inner(property);
    const isTable = type === 'object' || inner(items)['type'] === 'object';
    if (!isTable) page.entry(`${key} = ${kindOf(property)}`, sentence(String(description)));
  }
}

/** What a value may be, in short. */
function kindOf(property: unknown): string {
  const { type, enum: choices, minimum, maximum, anyOf, const: only, items } = inner(property);
  if (Array.isArray(choices)) return choices.map((choice) => `"${String(choice)}"`).join(' | ');
  if (Array.isArray(anyOf)) return anyOf.map(kindOf).join(' | ');
  if (typeof only === 'string') return `"${only}"`;
  if (type === 'array') return `[${kindOf(items)}, ...]`;
  if (type !== 'integer') return type === 'boolean' ? 'true | false' : '"TEXT"';
  return maximum === Number.MAX_SAFE_INTEGER
    ? `${String(minimum)} or more`
    : `${String(minimum)} to ${String(maximum)}`;
}

function inner(value: unknown): JsonSchema {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}

function propertiesOf(schema: unknown): JsonSchema {
  return inner(inner(schema)['properties']);
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${text.endsWith('.') ? '' : '.'}`;
}
