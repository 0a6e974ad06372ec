// The live view as lines: what it shows, what it leaves out where there is little room, and that it never takes more.
import fc from 'fast-check';
import t from 'tap';
import type { DeviceStatus, Status } from '../../../daemon/control/shapes.js';
import { ASCII, UNICODE, widthOf } from '../../../daemon/ctl/cells.js';
import type { SortKey } from '../../../daemon/ctl/top-devices.js';
import { TopHistory } from '../../../daemon/ctl/top-history.js';
import { drawTop, type Frame, type TopState } from '../../../daemon/ctl/top-view.js';
import { daemonStatus, deviceStatus, sourceStatus } from '../../support/status.js';

const PLAIN = { colours: false, glyphs: UNICODE };

/** Looks one second apart: `status` after `before`. */
function state(before: Status, status: Status, changes: Partial<TopState> = {}): TopState {
  const history = new TopHistory();
  history.look(before, 0);
  history.look(status, 1000);
  return { status, history, silence: null, sort: 'name', first: 0, intervalSeconds: 1, ...changes };
}

/** Every device has read so many bytes of its own in the last second. */
function reading(rates: Readonly<Record<string, number>>, device: Partial<DeviceStatus> = {}): TopState {
  const at = (factor: number): Status =>
    daemonStatus({
      devices: Object.entries(rates).map(([name, bytes]) =>
        deviceStatus(name, { bytes: factor * bytes, requests: (factor * bytes) / 64, ...device }),
      ),
    });
  return state(at(0), at(1));
}

function lineOf({ lines }: Frame, start: string): string {
  return lines.find((line) => line.startsWith(start)) ?? '';
}

await t.test('a device with its state, rates, limit, held time, latency and sparkline', (t) => {
  const limit = { maxBytes: 4096, periodMs: 1000, burstBytes: 0 };
  const ring = { state: 'held', size: 8, heldFor: 'limit' } as const;
  const device = deviceStatus('web1', { limit });
  const frontEnds = device.frontEnds.map((frontEnd) => ({ ...frontEnd, ring }));
  const before = daemonStatus({ devices: [device] });
  const now = deviceStatus('web1', {
    limit,
    frontEnds,
    bytes: 4096,
    requests: 64,
    throttledSeconds: 0.75,
  });
  const frame = drawTop(state(before, daemonStatus({ devices: [now] })), { columns: 130, rows: 24 }, PLAIN);
  t.match(
    lineOf(frame, 'web1'),
    /^web1 +held: limit +4\.00 KiB\/s +64 +4\.00 KiB \/ \S+ s +100 % +75 % +0 % +12 µs +1\.50 ms +█$/,
  );
  t.match(
    lineOf(frame, 'DEVICE'),
    /^DEVICE +STATE +RATE +REQ\/S +LIMIT +USED +THROTTLED +STARVED +P50 +P99 +HISTORY/,
  );
  t.end();
});

await t.test('the daemon, its health with every reason, and all devices together', (t) => {
  const reasons = ['no source is healthy: requests are held until one is', 'another reason'];
  const devices = [deviceStatus('a'), deviceStatus('b', { state: 'listening', frontEnds: [] })];
  const status = daemonStatus({ health: { status: 'failing', reasons }, devices });
  const { lines } = drawTop(state(status, status), { columns: 100, rows: 24 }, PLAIN);
  t.equal(lines[0], 'vhost-rngd 0.1.0  pid 100, up 1 h 1 min');
  t.equal(lines[1], 'health failing');
  t.equal(lines[2], `  ${reasons[0] ?? ''}`);
  t.equal(lines[3], '  another reason');
  t.match(lines[4], /^2 devices, 1 guest, 0 B\/s, 0 requests\/s/);
  t.end();
});

await t.test('a source with its state, rate and reason', (t) => {
  const at = (bytes: number): Status =>
    daemonStatus({
      sources: [
        sourceStatus('hwrng:/dev/hwrng', {
          state: 'failed',
          permanent: true,
          reason: 'it failed a health test',
        }),
        sourceStatus('random:/dev/random', { bytes, reason: 'it has passed its start-up test' }),
      ],
    });
  const frame = drawTop(state(at(0), at(2048)), { columns: 100, rows: 24 }, PLAIN);
  t.match(
    lineOf(frame, 'hwrng').trimEnd(),
    /^hwrng:\/dev\/hwrng +failed for good +0 B\/s .*it failed a health test$/,
  );
  t.match(lineOf(frame, 'random'), /^random:\/dev\/random +healthy +2\.00 KiB\/s/);
  t.notMatch(lineOf(frame, 'random'), /start-up/, 'what is well has no trouble to tell of');
  t.end();
});

await t.test('200 devices in 24 rows: as many as fit, and the rest by scrolling', (t) => {
  const rates = Object.fromEntries(
    Array.from({ length: 200 }, (_, i) => [`web${String(i).padStart(3, '0')}`, i]),
  );
  const all = reading(rates);
  const size = { columns: 80, rows: 24 };
  const top = drawTop(all, size, PLAIN);
  t.equal(top.lines.length, 24);
  t.ok(top.count >= 14, `${top.count} devices`);
  t.match(lineOf(top, 'web000'), /^web000/);
  t.match(lineOf(top, 'random:/dev/random'), /healthy/, 'sources stay in view');
  t.match(top.lines.at(-1), new RegExp(`1-${top.count} of 200`));
  const end = drawTop({ ...all, first: 1e9 }, size, PLAIN);
  t.equal(end.first, 200 - end.count, 'the last page is full');
  t.match(lineOf(end, 'web199'), /^web199/);
  t.match(end.lines.at(-1), /of 200/);
  t.end();
});

await t.test('width 40: name, rate and what is used stay, no line is wrapped', (t) => {
  const limit = { maxBytes: 100_000, periodMs: 1000, burstBytes: 0 };
  const { lines } = drawTop(reading({ web1: 50_000 }, { limit }), { columns: 40, rows: 24 }, PLAIN);
  t.match(lines.join('\n'), /^web1 +48\.8 KiB\/s.* 50 %/m);
  t.ok(lines.every((line) => widthOf(line) <= 40));
  t.end();
});

await t.test('more columns show more', (t) => {
  const titles = (columns: number): number =>
    lineOf(drawTop(reading({ web1: 1 }), { columns, rows: 24 }, PLAIN), 'DEVICE')
      .trim()
      .split(/ +/).length;
  t.ok(titles(40) < titles(80) && titles(80) < titles(140), [titles(40), titles(80), titles(140)].join());
  t.end();
});

await t.test('long and wide names keep the columns below each other', (t) => {
  const frame = drawTop(reading({ a: 64, ['日本語の'.repeat(20)]: 64 }), { columns: 100, rows: 24 }, PLAIN);
  const short = lineOf(frame, 'a ');
  const long = lineOf(frame, '日');
  const rateAt = (line: string): number => widthOf(line.slice(0, line.indexOf('64 B/s')));
  t.equal(rateAt(long), rateAt(short));
  t.match(long, /…/);
  t.end();
});

await t.test('what a terminal would act on is shown, not sent', (t) => {
  const evil = '\u001b]0;owned\u0007\u001b[2J\n\u009b1m';
  const status = daemonStatus({
    version: evil,
    health: { status: 'degraded', reasons: [evil] },
    devices: [deviceStatus(evil)],
    sources: [sourceStatus(evil, { state: 'failed', reason: evil })],
  });
  const silence = { reason: evil, seconds: 3 };
  for (const shown of [state(status, status), state(status, status, { silence })]) {
    const { lines } = drawTop(shown, { columns: 100, rows: 24 }, PLAIN);
    // eslint-disable-next-line no-control-regex
    t.notMatch(lines.join(''), /[\u0000-\u001f\u007f-\u009f]/);
    t.match(lines.join(''), /owned/, 'the rest of it is there');
  }
  t.end();
});

await t.test(
  'the daemon does not answer: said, with the reason and for how long; rates are not shown as if they were now',
  (t) => {
    const shown = reading({ web1: 640 });
    shown.history.miss();
    const silence = { reason: 'expected a daemon behind the socket', seconds: 12 };
    const { lines } = drawTop({ ...shown, silence }, { columns: 100, rows: 24 }, PLAIN);
    t.match(lines[1], /NO ANSWER for 12 s/);
    t.match(lines[2], /expected a daemon behind the socket/);
    t.match(
      lines.find((line) => line.startsWith('web1')),
      /^web1 +running +- +- /,
    );
    t.notMatch(lines.join('\n'), /health ok/);
    t.end();
  },
);

await t.test('sorted by name, rate, requests, limit and held time', (t) => {
  const limit = { maxBytes: 1000, periodMs: 1000, burstBytes: 0 };
  const at = (second: number): Status =>
    daemonStatus({
      devices: [
        deviceStatus('idle'),
        deviceStatus('fast', { bytes: second * 9000, requests: second * 2 }),
        deviceStatus('busy', { bytes: second * 800, requests: second * 100, limit }),
        deviceStatus('held', { bytes: second * 8, requests: second, throttledSeconds: second / 2 }),
      ],
    });
  const first = (sort: SortKey): string | undefined => {
    const { lines } = drawTop(state(at(0), at(1), { sort }), { columns: 80, rows: 24 }, PLAIN);
    return lines[lines.findIndex((line) => line.startsWith('DEVICE')) + 1]?.split(' ')[0];
  };
  t.equal(first('name'), 'busy');
  t.equal(first('rate'), 'fast');
  t.equal(first('requests'), 'busy');
  t.equal(first('used'), 'busy');
  t.equal(first('held'), 'held');
  t.end();
});

await t.test('no devices, and a terminal without UTF-8', (t) => {
  const status = daemonStatus();
  const plain = drawTop(state(status, status), { columns: 80, rows: 24 }, { colours: false, glyphs: ASCII });
  t.match(plain.lines.join('\n'), /no devices: vhost-rngctl add NAME SOCKET/);
  t.match(plain.lines.join(''), /^[\u0020-\u007e]*$/, 'plain ASCII');
  t.end();
});

await t.test('property: never more rows, never wider, whatever the size and whatever is shown', (t) => {
  const text = fc.string({ unit: 'grapheme', maxLength: 40 });
  fc.assert(
    fc.property(
      fc.record({
        columns: fc.integer({ min: 1, max: 200 }),
        rows: fc.integer({ min: 1, max: 60 }),
        names: fc.uniqueArray(text, { maxLength: 30 }),
        reasons: fc.array(text, { maxLength: 8 }),
        specs: fc.uniqueArray(text, { maxLength: 12 }),
        first: fc.nat(40),
        silent: fc.boolean(),
        glyphs: fc.constantFrom(UNICODE, ASCII),
      }),
      ({ columns, rows, names, reasons, specs, first, silent, glyphs }) => {
        const status = daemonStatus({
          health: { status: 'degraded', reasons },
          devices: names.map((name) => deviceStatus(name, { bytes: 64 })),
          sources: specs.map((spec) => sourceStatus(spec, { state: 'slow', reason: spec })),
        });
        const silence = silent ? { reason: reasons[0] ?? '', seconds: 5 } : null;
        const shown = state(status, status, { first, silence });
        const { lines } = drawTop(shown, { columns, rows }, { colours: false, glyphs });
        return lines.length <= rows && lines.every((line) => widthOf(line) <= columns);
      },
    ),
  );
  t.end();
});
