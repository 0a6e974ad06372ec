// The command line: each option, what it gives, and what is refused with which words.
import t from 'tap';
import { joinSettings, type Settings } from '../../daemon/config/settings.js';
import { deviceNames, parseOptions } from '../../daemon/options.js';
import type { SourceSpec } from '../../daemon/entropy/source-spec.js';
import { Fault } from '../../protocol/fault.js';

const DEVICE_DEFAULTS = {
  socketMode: 0o660,
  socketGroup: undefined,
  limit: undefined,
  weight: 1,
  entropy: { specs: ['random:/dev/random'], mix: false },
  memoryPolicy: 'guard',
  memSlots: 0,
  connections: 1,
  ownSources: false,
  paused: false,
} as const satisfies Settings['deviceDefaults'];

const DEFAULTS: Settings = {
  devices: [],
  fd: undefined,
  deviceDefaults: DEVICE_DEFAULTS,
  sources: [{ kind: 'random', text: 'random:/dev/random', path: '/dev/random', minEntropy: 8 }],
  total: undefined,
  debug: false,
  allowTestSources: false,
  busyPollUs: 0,
  logFormat: 'text',
  logLevel: 'info',
  control: { socketPath: undefined, socketGroup: undefined, admins: [], readers: undefined },
  stateFile: undefined,
};

/** What a command line comes to, without a configuration file. */
function settingsOf(line: string): Settings | Fault {
  const options = parseOptions(split(line), '1.2.3');
  if (typeof options === 'number') throw new Error('that was no option to go on with');
  return options instanceof Fault ? options : joinSettings(options, undefined);
}

/** Settings in which what holds for every device differs. */
function forAll(differences: Partial<Settings['deviceDefaults']>): Partial<Settings> {
  return { deviceDefaults: { ...DEVICE_DEFAULTS, ...differences } };
}

function control(differences: Partial<Settings['control']>): Partial<Settings> {
  return { control: { ...DEFAULTS.control, ...differences } };
}

/** Settings of a daemon whose devices draw from these. */
function drawingOn(...sources: readonly SourceSpec[]): Partial<Settings> {
  return { ...forAll({ entropy: { specs: sources.map(({ text }) => text), mix: false } }), sources };
}

function devices(...paths: readonly (readonly [string, string])[]): Partial<Settings> {
  return { devices: paths.map(([name, socketPath]) => ({ ...DEVICE_DEFAULTS, name, socketPath })) };
}

/** Arguments, separated by spaces, and in what their options differ from the defaults. */
const ACCEPTED: readonly (readonly [string, Partial<Settings>])[] = [
  ['', {}],
  ['--socket-path=/run/a.sock', devices(['a', '/run/a.sock'])],
  [
    '--socket-path /run/a.sock --socket-path=/run/b.sock',
    devices(['a', '/run/a.sock'], ['b', '/run/b.sock']),
  ],
  ['--fd=3', { fd: 3 }],
  ['--fd 2147483647', { fd: 2147483647 }],
  ['--source=getrandom', drawingOn({ kind: 'getrandom', text: 'getrandom', minEntropy: 8 })],
  [
    '--source=hwrng --source=random:/dev/urandom',
    drawingOn(
      { kind: 'hwrng', text: 'hwrng:/dev/hwrng', path: '/dev/hwrng', minEntropy: 8 },
      { kind: 'random', text: 'random:/dev/urandom', path: '/dev/urandom', minEntropy: 8 },
    ),
  ],
  [
    '--allow-test-sources --source=file:/x',
    { allowTestSources: true, ...drawingOn({ kind: 'file', text: 'file:/x', path: '/x', minEntropy: 8 }) },
  ],
  ['--max-bytes=1', forAll({ limit: { maxBytes: 1, periodMs: 65536, burstBytes: 0 } })],
  [
    '--max-bytes=9007199254740991 --period=1',
    forAll({ limit: { maxBytes: 2 ** 53 - 1, periodMs: 1, burstBytes: 0 } }),
  ],
  [
    '--period=2147483647 --max-bytes=64',
    forAll({ limit: { maxBytes: 64, periodMs: 2147483647, burstBytes: 0 } }),
  ],
  ['--max-bytes=64 --burst-bytes=0', forAll({ limit: { maxBytes: 64, periodMs: 65536, burstBytes: 0 } })],
  [
    '--burst-bytes=4096 --max-bytes=64 --period=1000',
    forAll({ limit: { maxBytes: 64, periodMs: 1000, burstBytes: 4096 } }),
  ],
  ['--total-max-bytes=1', { total: { maxBytes: 1, periodMs: 65536, burstBytes: 0 } }],
  [
    '--total-max-bytes=4096 --total-period=250 --max-bytes=64',
    {
      ...forAll({ limit: { maxBytes: 64, periodMs: 65536, burstBytes: 0 } }),
      total: { maxBytes: 4096, periodMs: 250, burstBytes: 0 },
    },
  ],
  [
    '--mix',
    {
      ...forAll({ entropy: { specs: ['random:/dev/random'], mix: true } }),
      sources: [...DEFAULTS.sources, { kind: 'getrandom', text: 'getrandom', minEntropy: 8 }],
    },
  ],
  ['--debug', { debug: true }],
  ['--busy-poll-us=0', {}],
  ['--busy-poll-us=50', { busyPollUs: 50 }],
  ['--busy-poll-us=1000000', { busyPollUs: 1_000_000 }],
  ['--busy-poll-us=auto', {}],
  ['--memory=require-sealed', forAll({ memoryPolicy: 'require-sealed', memSlots: 0 })],
  ['--memory=trust --mem-slots=32', forAll({ memoryPolicy: 'trust', memSlots: 32 })],
  ['--socket-mode=0600', forAll({ socketMode: 0o600 })],
  ['--socket-mode=777', forAll({ socketMode: 0o777 })],
  ['--socket-group=kvm', forAll({ socketGroup: 'kvm' })],
  [
    '--control-socket=/run/c.sock --control-group=wheel',
    control({ socketPath: '/run/c.sock', socketGroup: 'wheel' }),
  ],
  ['--control-admins=root,7 --control-readers=8', control({ admins: [0, 7], readers: [8] })],
  ['--state-file=/var/lib/x.json', { stateFile: '/var/lib/x.json' }],
  ['--log-format=json', { logFormat: 'json' }],
  ['--log-level=debug', { logLevel: 'debug' }],
];

t.test('what is accepted', (t) => {
  for (const [line, differences] of ACCEPTED) {
    t.same(settingsOf(line), { ...DEFAULTS, ...differences }, line === '' ? 'nothing' : line);
  }
  t.end();
});

function split(line: string): string[] {
  return line === '' ? [] : line.split(' ');
}

/** Arguments and what the refusal names. */
const REFUSED: readonly (readonly [string, RegExp])[] = [
  ['--nonsense', /--nonsense/],
  ['surplus', /expected options only, got 'surplus'/],
  ['--socket-path', /--socket-path/],
  ['--socket-path=', /--socket-path/],
  ['--socket-path=/a --socket-path=/a', /\/a twice/],
  ['--fd=0', /standard stream/],
  ['--fd=2', /standard stream/],
  ['--fd=-1', /integer/],
  ['--fd=3.5', /integer/],
  ['--fd=0x10', /integer/],
  ['--fd=', /--fd/],
  ['--fd=2147483648', /integer/],
  ['--fd=3 --socket-path=/a', /--socket-path or --fd, got both/],
  ['--max-bytes=0', /integer from 1/],
  ['--max-bytes=-5', /integer/],
  ['--max-bytes=1e3', /integer/],
  ['--max-bytes=9007199254740992', /integer/],
  ['--max-bytes=ten', /integer/],
  ['--period=100', /--period alone/],
  ['--period=0 --max-bytes=1', /integer from 1/],
  ['--period=2147483648 --max-bytes=1', /integer/],
  ['--burst-bytes=64', /--max-bytes with --burst-bytes, got --burst-bytes alone/],
  ['--burst-bytes=64 --total-max-bytes=64', /--burst-bytes alone/],
  ['--burst-bytes=-1 --max-bytes=64', /integer from 0/],
  ['--total-period=64', /--total-max-bytes with --total-period, got --total-period alone/],
  ['--total-period=64 --max-bytes=64', /--total-period alone/],
  ['--total-period=0 --total-max-bytes=64', /integer from 1/],
  ['--total-max-bytes=0', /integer from 1/],
  ['--busy-poll-us=1000001', /integer/],
  ['--busy-poll-us=-1', /integer/],
  ['--memory=maybe', /guard, require-sealed, trust/],
  ['--mem-slots=33', /integer from 0 to 32/],
  ['--socket-mode=rw', /octal/],
  ['--socket-mode=0888', /octal/],
  ['--socket-mode=12345', /octal/],
  ['--control-socket=run/c.sock', /--control-socket: expected an absolute path/],
  ['--control-admins=no-such-user', /expected a user of this host, got no-such-user/],
  ['--socket-path=/a --control-socket=/a', /a path of its own/],
  ['--check-config', /--config with --check-config/],
  ['--log-format=xml', /text, json/],
  ['--log-level=loud', /error, warn, info, debug/],
  // Row 179.
  ['--source=nonsense', /nonsense/],
  ['--source=', /expected random/],
  ['--source=random --source=random', /random twice/],
  ['--source=random --source=random:/dev/random', /twice/],
  ['--source=file:/x', /--allow-test-sources/],
  ['--source=rdrand --source=rdrand,min-entropy=1', /rdrand,min-entropy=1 twice/],
  ['--source=egd:unix:x', /absolute path behind egd:unix:/],
];

t.test('what is refused', (t) => {
  for (const [line, pattern] of REFUSED) {
    const refused = settingsOf(line);
    if (!(refused instanceof Fault)) {
      t.fail(`${line} was accepted`);
      continue;
    }
    t.match(refused.message, pattern, line);
    t.equal(refused.scope, 'daemon');
  }
  t.end();
});

t.test('devices are named after their sockets, by the whole path where that is not unique', (t) => {
  t.same(deviceNames(['/run/rng0.sock', '/run/b.socket', '/run/c']), ['rng0', 'b', 'c']);
  t.same(deviceNames(['/a/rng.sock', '/b/rng.sock', '/c.sock']), ['/a/rng.sock', '/b/rng.sock', 'c']);
  t.same(deviceNames([]), []);
  t.end();
});
