// The command line: each option, what it gives, and what is refused with which words.
import t from 'tap';
import { deviceNames, type Options, parseOptions } from '../../daemon/options.js';
import { Fault } from '../../protocol/fault.js';

const DEFAULTS: Options = {
  socketPaths: [],
  fd: undefined,
  sources: [{ kind: 'random', text: 'random:/dev/random', path: '/dev/random', minEntropy: 8 }],
  limit: undefined,
  total: undefined,
  busyPollUs: 0,
  memory: { memoryPolicy: 'guard', memSlots: 0 },
  socketMode: 0o660,
  socketGroup: undefined,
  logFormat: 'text',
  logLevel: 'info',
  mix: false,
  debug: false,
};

/** Arguments, separated by spaces, and in what their options differ from the defaults. */
const ACCEPTED: readonly (readonly [string, Partial<Options>])[] = [
  ['', {}],
  ['--socket-path=/run/a.sock', { socketPaths: ['/run/a.sock'] }],
  ['--socket-path /run/a.sock --socket-path=/run/b.sock', { socketPaths: ['/run/a.sock', '/run/b.sock'] }],
  ['--fd=3', { fd: 3 }],
  ['--fd 2147483647', { fd: 2147483647 }],
  ['--source=getrandom', { sources: [{ kind: 'getrandom', text: 'getrandom', minEntropy: 8 }] }],
  [
    '--source=hwrng --source=random:/dev/urandom',
    {
      sources: [
        { kind: 'hwrng', text: 'hwrng:/dev/hwrng', path: '/dev/hwrng', minEntropy: 8 },
        { kind: 'random', text: 'random:/dev/urandom', path: '/dev/urandom', minEntropy: 8 },
      ],
    },
  ],
  [
    '--allow-test-sources --source=file:/x',
    { sources: [{ kind: 'file', text: 'file:/x', path: '/x', minEntropy: 8 }] },
  ],
  ['--max-bytes=1', { limit: { maxBytes: 1, periodMs: 65536, burstBytes: 0 } }],
  [
    '--max-bytes=9007199254740991 --period=1',
    { limit: { maxBytes: 2 ** 53 - 1, periodMs: 1, burstBytes: 0 } },
  ],
  ['--period=2147483647 --max-bytes=64', { limit: { maxBytes: 64, periodMs: 2147483647, burstBytes: 0 } }],
  ['--max-bytes=64 --burst-bytes=0', { limit: { maxBytes: 64, periodMs: 65536, burstBytes: 0 } }],
  [
    '--burst-bytes=4096 --max-bytes=64 --period=1000',
    { limit: { maxBytes: 64, periodMs: 1000, burstBytes: 4096 } },
  ],
  ['--total-max-bytes=1', { total: { maxBytes: 1, periodMs: 65536, burstBytes: 0 } }],
  [
    '--total-max-bytes=4096 --total-period=250 --max-bytes=64',
    {
      limit: { maxBytes: 64, periodMs: 65536, burstBytes: 0 },
      total: { maxBytes: 4096, periodMs: 250, burstBytes: 0 },
    },
  ],
  ['--mix', { mix: true }],
  ['--debug', { debug: true }],
  ['--busy-poll-us=0', {}],
  ['--busy-poll-us=50', { busyPollUs: 50 }],
  ['--busy-poll-us=1000000', { busyPollUs: 1_000_000 }],
  ['--busy-poll-us=auto', {}],
  ['--memory=require-sealed', { memory: { memoryPolicy: 'require-sealed', memSlots: 0 } }],
  ['--memory=trust --mem-slots=32', { memory: { memoryPolicy: 'trust', memSlots: 32 } }],
  ['--socket-mode=0600', { socketMode: 0o600 }],
  ['--socket-mode=777', { socketMode: 0o777 }],
  ['--socket-group=kvm', { socketGroup: 'kvm' }],
  ['--log-format=json', { logFormat: 'json' }],
  ['--log-level=debug', { logLevel: 'debug' }],
];

t.test('what is accepted', (t) => {
  for (const [line, differences] of ACCEPTED) {
    t.same(
      parseOptions(split(line), '1.2.3'),
      { ...DEFAULTS, ...differences },
      line === '' ? 'nothing' : line,
    );
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
    const refused = parseOptions(split(line), '1.2.3');
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
