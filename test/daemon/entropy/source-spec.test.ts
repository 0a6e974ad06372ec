// `--source=SPEC`: every form, and what is refused with which words. Rows 164 and 179 of the bad input.
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { checkEgdAddress } from '../../../daemon/entropy/egd-address.js';
import { parseSourceSpec, type SourceSpec } from '../../../daemon/entropy/source-spec.js';
import { Fault } from '../../../protocol/fault.js';
import { temporaryFolder } from '../../support/rng-daemon.js';

const unix = (path: string) => ({ kind: 'egd', address: { kind: 'unix', path } });
const tcp = (host: string, port: number) => ({ kind: 'egd', address: { kind: 'tcp', host, port } });

/** As long as a socket path can be. */
const LONGEST = `/${'x'.repeat(106)}`;

/** Specs, their full form, and what they are parsed to. */
const ACCEPTED: readonly (readonly [string, string, object])[] = [
  ['random', 'random:/dev/random', { kind: 'random', path: '/dev/random' }],
  ['hwrng', 'hwrng:/dev/hwrng', { kind: 'hwrng', path: '/dev/hwrng' }],
  ['random:/dev/urandom', 'random:/dev/urandom', { kind: 'random', path: '/dev/urandom' }],
  ['hwrng:/a:b', 'hwrng:/a:b', { kind: 'hwrng', path: '/a:b' }],
  ['hwrng:/a,b=c', 'hwrng:/a,b=c', { kind: 'hwrng', path: '/a,b=c' }],
  ['file:/a', 'file:/a', { kind: 'file', path: '/a' }],
  ...['getrandom', 'rdrand', 'rdseed', 'jitter'].map((kind) => [kind, kind, { kind }] as const),
  ['egd:unix:/run/egd.sock', 'egd:unix:/run/egd.sock', unix('/run/egd.sock')],
  ['egd:unix:/a:b,c', 'egd:unix:/a:b,c', unix('/a:b,c')],
  [`egd:unix:${LONGEST}`, `egd:unix:${LONGEST}`, unix(LONGEST)],
  ['egd:tcp:Host.example.:708', 'egd:tcp:host.example.:708', tcp('host.example.', 708)],
  ['egd:tcp:my_host-1:00708', 'egd:tcp:my_host-1:708', tcp('my_host-1', 708)],
  ['egd:tcp:127.0.0.1:1', 'egd:tcp:127.0.0.1:1', tcp('127.0.0.1', 1)],
  ['egd:tcp:[::1]:65535', 'egd:tcp:[::1]:65535', tcp('::1', 65535)],
  ['egd:tcp:[FE80::1%eth0]:9', 'egd:tcp:[fe80::1%eth0]:9', tcp('fe80::1%eth0', 9)],
];

const REFUSED: readonly (readonly [string, RegExp])[] = [
  ['file', /absolute path behind file:/],
  ['file:', /absolute path/],
  ['random:', /absolute path behind random:/],
  ['random:dev/random', /absolute path/],
  ['hwrng:./x', /absolute path/],
  ['hwrng:/x\0y', /absolute path/],
  ['getrandom:/dev/random', /expected getrandom alone/],
  ['getrandom:', /expected getrandom alone/],
  ['rdrand:0', /expected rdrand alone/],
  ['rdseed,osr=3', /expected random\[/],
  ['jitter:', /jitter alone/],
  ...['Random', ' random', 'random ', '__proto__', 'constructor:/x', 'toString', '', ':', ':/x'].map(
    (text) => [text, /expected random\[:PATH\], .*egd:tcp:HOST:PORT, got/] as const,
  ),
  ...['egd', 'egd:', 'egd:/x', 'egd:UNIX:/x', 'egd:udp:h:1'].map(
    (text) => [text, /expected egd:unix:PATH or egd:tcp:HOST:PORT/] as const,
  ),
  ['egd:unix:', /absolute path/],
  ['egd:unix:x', /absolute path/],
  ['egd:unix:/x\0', /absolute path/],
  [`egd:unix:${LONGEST}x`, /at most 107 bytes \(this one has 108\)/],
  [`egd:unix:/${'ä'.repeat(54)}`, /at most 107 bytes \(this one has 109\)/],
  ...[
    'egd:tcp:',
    'egd:tcp:h',
    'egd:tcp:h:',
    'egd:tcp:::1:708',
    'egd:tcp:h:1:2',
    'egd:tcp:h:-1',
    'egd:tcp:h:1e3',
  ].map((text) => [text, /HOST:PORT, an IPv6 address in brackets/] as const),
  ...['egd:tcp:h:123456', 'egd:tcp:[::1]', 'egd:tcp:[::1:708', 'egd:tcp:h: 1', 'egd:tcp:h:1 '].map(
    (text) => [text, /HOST:PORT, an IPv6 address in brackets/] as const,
  ),
  ['egd:tcp:h:0', /port from 1 to 65535/],
  ['egd:tcp:h:65536', /port from 1 to 65535/],
  ['egd:tcp:[127.0.0.1]:1', /IPv6 address in the brackets/],
  ['egd:tcp:[]:1', /IPv6 address in the brackets/],
  ...[
    'egd:tcp::1',
    'egd:tcp:256.1.1.1:1',
    'egd:tcp:1.2.3:1',
    'egd:tcp:a..b:1',
    'egd:tcp:-h:1',
    'egd:tcp:a/b:1',
  ].map((text) => [text, /host name or an IP address/] as const),
  [`egd:tcp:${'h'.repeat(254)}:1`, /host name or an IP address/],
];

t.test('every form', (t) => {
  for (const [text, full, parsed] of ACCEPTED) {
    t.same(parseSourceSpec(text, true), { ...parsed, text: full, minEntropy: 8 }, text);
    t.same(parseSourceSpec(full, true), { ...parsed, text: full, minEntropy: 8 }, 'the full form too');
    const weak = { ...parsed, text: full, minEntropy: 0.5 };
    t.same(parseSourceSpec(`${text},min-entropy=0.5`, true), weak, 'with less entropy than it looks');
  }
  t.end();
});

t.test('what is refused', (t) => {
  for (const [text, message] of REFUSED) {
    t.match(parseSourceSpec(text, true), { code: 'source_spec', scope: 'daemon', message }, text);
    t.type(parseSourceSpec(`${text},min-entropy=8`, true), Fault);
  }
  t.match(parseSourceSpec('file:/x', false), { code: 'source_spec', message: /--allow-test-sources/ });
  t.end();
});

t.test('min-entropy is a decimal number from 0.25 to 8', (t) => {
  for (const [text, minEntropy] of [
    ['8', 8],
    ['8.0', 8],
    ['0.25', 0.25],
    ['1', 1],
    ['7.999', 7.999],
    ['01', 1],
  ] as const) {
    t.match(parseSourceSpec(`rdrand,min-entropy=${text}`, false), { kind: 'rdrand', minEntropy }, text);
  }
  for (const text of [
    '',
    '0',
    '0.0',
    '0.24',
    '8.1',
    '9',
    '-1',
    '+1',
    '1e0',
    '0x1',
    '.5',
    '1.',
    ' 1',
    '1 ',
    'NaN',
    '1,5',
    'Infinity',
  ]) {
    const refused = parseSourceSpec(`rdrand,min-entropy=${text}`, false);
    t.match(refused, { code: 'source_spec', message: /min-entropy from 0.25 to 8/ }, `'${text}'`);
  }
  // The last one counts; what is in front of it is part of a path, or wrong.
  t.match(parseSourceSpec('hwrng:/a,min-entropy=x,min-entropy=2', false), {
    path: '/a,min-entropy=x',
    minEntropy: 2,
  });
  t.type(parseSourceSpec('rdrand,min-entropy=1,min-entropy=2', false), Fault);
  t.end();
});

t.test('any text is a spec or a fault, and a spec’s text means the same again', (t) => {
  const kinds = fc.constantFrom('random', 'hwrng', 'egd:unix:/', 'egd:tcp:', 'egd:tcp:[', 'rdrand', 'file:/');
  const text = fc.oneof(
    fc.string(),
    fc.tuple(kinds, fc.string()).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(text, (given) => {
      const spec: SourceSpec | Fault = parseSourceSpec(given, true);
      if (spec instanceof Fault) return spec.code === 'source_spec';
      const again = parseSourceSpec(spec.text, true);
      return (
        !(again instanceof Fault) && JSON.stringify(again) === JSON.stringify({ ...spec, minEntropy: 8 })
      );
    }),
    { numRuns: 2000 },
  );
  t.end();
});

t.test(
  'row 164: a path where no socket can be is an error at start, one where nothing is yet is not',
  async (t) => {
    const folder = temporaryFolder(t);
    const path = (name: string) => ({ kind: 'unix', path: join(folder, name) }) as const;
    writeFileSync(join(folder, 'file'), '');
    const server = createServer().listen(join(folder, 'socket'));
    t.teardown(() => server.close());
    await new Promise((resolve) => server.once('listening', resolve));
    t.match(checkEgdAddress(path('')), { code: 'source_open', message: /a directory/ });
    t.match(checkEgdAddress(path('file')), { code: 'source_open', message: /a regular file/ });
    t.match(checkEgdAddress({ kind: 'unix', path: '/dev/null' }), {
      code: 'source_open',
      message: /a device/,
    });
    t.equal(checkEgdAddress(path('socket')), undefined);
    t.equal(checkEgdAddress(path('nothing')), undefined);
    t.equal(checkEgdAddress({ kind: 'tcp', host: 'no-such-host', port: 1 }), undefined);
  },
);
