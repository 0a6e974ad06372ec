// The configuration file and its reload, with the real program: rows 177, 179, 181 and 184 of ARCHITECTURE.md, "Bad input".
//
// Leaves out: options (test/daemon/options), lines of keys case by case (test/daemon/config/toml-lines).
import { chmodSync, existsSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { configSchema } from '../../daemon/config/config-schema.js';
import { ask } from '../support/control-client.js';
import { startDaemon } from '../support/guest/daemon.js';
import { eventually, temporaryFolder } from '../support/rng-daemon.js';
import { isLive, MAIN, runToEnd } from '../support/started-process.js';
import { VirtualMachine } from '../support/virtual-machine.js';

const EX_CONFIG = 78;
const DOCS = new URL('../../../docs/', import.meta.url);

/** A file's text with SOCKET where the test puts a path, and what the refusal says behind the file's name. */
const REFUSED: Readonly<Record<string, readonly [string, RegExp]>> = {
  'row 177: an unknown key': [
    '[[device]]\nname = "a"\nsocket-path = "SOCKET"\nmax-byte = 1\n',
    /:4: device 1: max-byte: expected a known key: did you mean max-bytes\?/,
  ],
  'row 177: an unknown key at the top': [
    'colour = 1\n',
    /:1: colour: expected a known key: one of max-bytes, /,
  ],
  'row 177: an unknown table': [
    '[[device]]\nname = "a"\nsocket-path = "SOCKET"\n[colours]\n',
    /:4: colours: expected a known key/,
  ],
  'row 177: a key twice': ['period = 1\nmax-bytes = 1\nperiod = 2\n', /:3: /],
  'row 177: a table twice': ['[control]\n[control]\n', /:2: /],
  'row 177: a wrong type': [
    'max-bytes = 1\n\n# a comment\nperiod = "1000"\n',
    /:4: period: expected an integer from 1 to 2147483647, got "1000"/,
  ],
  'row 177: a table where a list belongs': [
    '[device]\nname = "a"\n',
    /:1: device: expected \[\[device\]\] tables/,
  ],
  'an impossible value': [
    '[[device]]\nname = "a"\nsocket-path = "SOCKET"\n[[device]]\nname = "b"\nsocket-path = "SOCKET2"\nweight = 0\n',
    /:7: device 2: weight: expected an integer from 1 to 1000, got 0/,
  ],
  'a fraction': ['mem-slots = 1.5\n', /:1: mem-slots: expected an integer/],
  'a number that no number holds': ['max-bytes = 99999999999999999999\n', /:1: /],
  'half a limit': ['\nperiod = 1000\n', /:2: expected --max-bytes with --period/],
  'a name twice': [
    '[[device]]\nname = "a"\nsocket-path = "SOCKET"\n[[device]]\nname = "a"\nsocket-path = "SOCKET2"\n',
    /:5: expected each name once, got a twice/,
  ],
  'a path twice': [
    '[[device]]\nname = "a"\nsocket-path = "SOCKET"\n[[device]]\nname = "b"\nsocket-path = "SOCKET"\n',
    /:6: expected each socket-path once/,
  ],
  'a relative path': [
    '[[device]]\nname = "a"\nsocket-path = "a.sock"\n',
    /:3: device 1: socket-path: expected an absolute path, got "a.sock"/,
  ],
  'a missing key': ['[[device]]\nname = "a"\n', /:1: device 1: socket-path: expected a value, got none/],
  'a name with an escape': [
    '[[device]]\nname = "\\u001b[2J"\nsocket-path = "SOCKET"\n',
    /:2: device 1: name: expected a name of letters/,
  ],
  'row 179: no source': ['sources = []\n', /:1: sources: expected at least one source/],
  'row 179: a source twice': [
    'sources = ["random", "random:/dev/random"]\n',
    /:1: expected each source once/,
  ],
  'row 179: an unknown source': [
    '[[device]]\nname = "a"\nsocket-path = "SOCKET"\nsources = ["nonsense"]\n',
    /:4: expected random/,
  ],
  'a user that is not there': [
    '[control]\nadmins = ["no-such-user"]\n',
    /:2: expected a user of this host, got no-such-user/,
  ],
  __proto__: ['[__proto__]\nperiod = 1\n', /expected a known key, got __proto__/],
  'a key named constructor': ['constructor = 1\n', /:1: expected a known key, got constructor/],
  'syntax that is none': ['max-bytes = \n', /:1: /],
  'row 181: an empty file': ['', /expected at least one \[\[device\]\], or a control socket/],
};

for (const [title, [text, says]] of Object.entries(REFUSED)) {
  await t.test(`${title}: exit ${EX_CONFIG} before listening, with the line`, (t) => {
    const folder = temporaryFolder(t);
    const file = join(folder, 'config.toml');
    const socket = join(folder, 'a.sock');
    writeFileSync(file, text.replaceAll('SOCKET', socket));
    for (const args of [[`--config=${file}`], [`--config=${file}`, '--check-config']]) {
      const { status, stdout, stderr } = runToEnd(args);
      t.equal(status, EX_CONFIG);
      t.equal(stdout, '');
      t.ok(stderr.startsWith(`vhost-rngd: ${file}:`), stderr);
      t.match(stderr.slice(`vhost-rngd: ${file}`.length), says);
      t.match(stderr, /^[^\n]*\n$/, 'one line');
      t.notMatch(stderr.slice(0, -1), /\p{Cc}/u);
    }
    t.notOk(existsSync(socket));
    t.end();
  });
}

/** What stands where the file should be. */
const ODD: Readonly<Record<string, readonly [(path: string) => void, RegExp]>> = {
  nothing: [() => undefined, /reading it failed: ENOENT/],
  'a directory': [(path) => mkdirSync(path), /expected a file, got something else/],
  'a FIFO': [(path) => void spawnSync('mkfifo', [path]), /expected a file, got something else/],
  '100 MiB': [
    (path) => {
      writeFileSync(path, '');
      truncateSync(path, 100 << 20);
    },
    /expected at most 1048576 bytes, got 104857600/,
  ],
  'a program': [
    (path) => writeFileSync(path, readFileSync(process.execPath).subarray(0, 100_000)),
    /expected text in UTF-8, got other bytes/,
  ],
};

for (const [title, [prepare, says]] of Object.entries(ODD)) {
  await t.test(`row 181: ${title} in the place of the file`, (t) => {
    const file = join(temporaryFolder(t), 'config.toml');
    prepare(file);
    t.match(runToEnd([`--config=${file}`]), { status: EX_CONFIG, stderr: says });
    t.end();
  });
}

const asRoot = process.getuid?.() === 0 ? {} : { skip: 'becoming another user needs root' };
await t.test('row 181: a file that this user may not read', asRoot, (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'config.toml');
  writeFileSync(file, '', { mode: 0o600 });
  chmodSync(folder, 0o755);
  const args = [
    '--reuid=65534',
    '--regid=65534',
    '--clear-groups',
    process.execPath,
    MAIN,
    `--config=${file}`,
  ];
  const { status, stderr } = spawnSync('setpriv', args, { encoding: 'utf8', timeout: 20_000 });
  t.equal(status, EX_CONFIG);
  t.match(stderr, /EACCES: give the user of the daemon read permission/);
  t.end();
});

await t.test('row 181: a byte order mark and CRLF are taken', (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'config.toml');
  writeFileSync(file, `\uFEFF[[device]]\r\nname = "a"\r\nsocket-path = "${folder}/a.sock"\r\n`);
  t.match(runToEnd([`--config=${file}`, '--check-config']), {
    status: 0,
    stdout: `${file}: ok\n`,
    stderr: '',
  });
  t.end();
});

await t.test('the example is right, and the JSON schema is that of the code', (t) => {
  const example = new URL('vhost-rngd.toml', DOCS).pathname;
  t.match(runToEnd([`--config=${example}`, '--check-config']), { status: 0, stderr: '' });
  const schema = configSchema();
  t.same(
    JSON.parse(readFileSync(new URL('vhost-rngd.schema.json', DOCS), 'utf8')),
    schema,
    'docs/vhost-rngd.schema.json',
  );
  const text = readFileSync(example, 'utf8');
  const { properties } = schema as { properties: Record<string, { items?: { properties: object } }> };
  const keys = [...Object.keys(properties), ...Object.keys(properties['device']?.items?.properties ?? {})];
  const missing = keys.filter((key) => !new RegExp(`^(# )?\\[*${key}\\b`, 'm').test(text));
  t.same(
    missing.filter((key) => key !== 'allow-test-sources'),
    [],
    'the example shows every key',
  );
  t.end();
});

await t.test('what a device says, then an option, then the top of the file', async (t) => {
  const folder = temporaryFolder(t);
  const at = (name: string): string => join(folder, name);
  writeFileSync(
    at('config'),
    `max-bytes = 10\nperiod = 100\n[[device]]\nname = "a"\nsocket-path = "${at('a.sock')}"\n[[device]]\nname = "b"\nsocket-path = "${at('b.sock')}"\nmax-bytes = 30\n[control]\nsocket = "${at('file.sock')}"\n`,
  );
  const daemon = await startDaemon([
    `--config=${at('config')}`,
    '--max-bytes=20',
    `--control-socket=${at('option.sock')}`,
  ]);
  t.teardown(() => daemon.kill());
  t.ok(await eventually(() => existsSync(at('option.sock')) && isLive(at('option.sock'))));
  const { json } = await ask(at('option.sock'), 'GET /v1/devices');
  t.match(json, {
    devices: [
      { name: 'a', limit: { maxBytes: 20, periodMs: 100 } },
      { name: 'b', limit: { maxBytes: 30, periodMs: 100 } },
    ],
  });
  t.notOk(existsSync(at('file.sock')));
});

await t.test(
  'row 184: reload: all that can be changed is, the rest is named, and a bad file changes nothing',
  async (t) => {
    const folder = temporaryFolder(t);
    const at = (name: string): string => join(folder, name);
    const device = (name: string, more = ''): string =>
      `[[device]]\nname = "${name}"\nsocket-path = "${at(`${name}.sock`)}"\n${more}\n`;
    const control = `[control]\nsocket = "${at('control.sock')}"\n`;
    const write = (text: string): void => writeFileSync(at('config'), text);
    write(device('a') + device('b') + device('c') + control);
    const daemon = await startDaemon([`--config=${at('config')}`]);
    t.teardown(() => daemon.kill());
    await daemon.waitForLog(/c: listening/, 20_000);
    const vm = VirtualMachine.start(at('a.sock'));
    t.equal(vm.request().length, 64);
    const reload = () => ask(at('control.sock'), 'POST /v1/reload');
    t.match(await reload(), { status: 200, json: { changed: [], needsRestart: [] } });

    const bad = `${device('d')}${device('a', 'max-bytes = 0')}${control}`;
    write(bad);
    t.match(await reload(), {
      status: 400,
      json: { error: { code: 'config', message: /:8: device 2: max-bytes: expected/ } },
    });
    const before = daemon.log.length;
    process.kill(daemon.pid, 'SIGHUP');
    await daemon.waitForLog(
      /not reloaded, the old configuration stays: .*:8: device 2.*\[reload_failed\]/,
      5000,
      before,
    );
    t.notOk(existsSync(at('d.sock')));
    // A socket that cannot be opened is found out before anything is done.
    write(
      `${device('a', 'max-bytes = 100')}${device('d')}[[device]]\nname = "e"\nsocket-path = "/no/such/folder/e"\n${control}`,
    );
    t.match(await reload(), { json: { error: { code: 'socket_folder_missing' } } });
    t.notOk(existsSync(at('d.sock')), 'what was opened is closed again');
    t.match(await ask(at('control.sock'), 'GET /v1/devices'), {
      json: { devices: [{ name: 'a', limit: null }, { name: 'b' }, { name: 'c' }] },
    });

    write(
      `log-level = "debug"\nbusy-poll-us = 5\nsources = ["getrandom"]\ntotal-max-bytes = 1000000\n${device('a', 'max-bytes = 100\nperiod = 3600000')}${device('c', 'weight = 7\nmemory = "trust"')}${device('d')}${control}`,
    );
    t.match(await reload(), {
      json: {
        changed: [
          'device d added',
          'device b removed',
          'device a: 100 bytes per 3600000 ms',
          'device c: weight 7',
          'sources getrandom',
          'in total 1000000 bytes per 65536 ms',
          'log-level debug',
          /what holds for devices/,
        ],
        needsRestart: ['device c: memory-policy', 'busy-poll-us'],
      },
    });
    t.notOk(existsSync(at('b.sock')));
    t.ok(isLive(at('d.sock')));
    t.equal(vm.request(200).length, 36, 'the new limit counts what was delivered before');
    t.match(await ask(at('control.sock'), 'GET /v1/devices/c'), { json: { weight: 7 } });
    vm.close();
  },
);

await t.test('row 175: a reload during a reload is told so', async (t) => {
  const folder = temporaryFolder(t);
  const at = (name: string): string => join(folder, name);
  const device = (i: number): string => `[[device]]\nname = "d${i}"\nsocket-path = "${at(`${i}.sock`)}"\n`;
  const control = `[control]\nsocket = "${at('control.sock')}"\n`;
  writeFileSync(at('config'), device(0) + control);
  const daemon = await startDaemon([`--config=${at('config')}`, '--log-level=warn']);
  t.teardown(() => daemon.kill());
  t.ok(await eventually(() => existsSync(at('control.sock')) && isLive(at('control.sock')), 20_000));
  // Each of them is a change that the data plane has to answer.
  writeFileSync(at('config'), Array.from({ length: 200 }, (_, i) => device(i)).join('') + control);
  const answers = await Promise.all([1, 2, 3].map(() => ask(at('control.sock'), 'POST /v1/reload')));
  t.same(answers.map(({ status }) => status).sort(), [200, 409, 409]);
  t.match(
    answers.find(({ status }) => status === 409),
    { json: { error: { code: 'reload_busy' } } },
  );
  t.match((await ask(at('control.sock'), 'GET /v1/devices/d199')).status, 200);
});

await t.test(
  'SIGHUP during a reload: what was written after that had read the file is read too',
  async (t) => {
    const folder = temporaryFolder(t);
    const at = (name: string): string => join(folder, name);
    const device = (i: number): string => `[[device]]\nname = "d${i}"\nsocket-path = "${at(`${i}.sock`)}"\n`;
    const write = (count: number): void =>
      writeFileSync(
        at('config'),
        `${Array.from({ length: count }, (_, i) => device(i)).join('')}[control]\nsocket = "${at('control.sock')}"\n`,
      );
    write(1);
    const daemon = await startDaemon([`--config=${at('config')}`, '--log-level=warn']);
    t.teardown(() => daemon.kill());
    t.ok(await eventually(() => existsSync(at('control.sock')) && isLive(at('control.sock')), 20_000));
    write(200);
    const first = ask(at('control.sock'), 'POST /v1/reload');
    t.ok(await eventually(() => existsSync(at('1.sock')), 20_000), 'it is under way');
    write(201);
    for (let i = 0; i < 3; i++) process.kill(daemon.pid, 'SIGHUP');
    t.match(await first, { status: 200 });
    t.ok(await eventually(() => existsSync(at('200.sock')), 20_000), 'and another follows');
  },
);
