// The screen of top: what is known, in as many rows and columns as there are. Pure: numbers in, lines out.
import { fit, sparkline } from './cells.js';
import { type Output, type Tone, toned } from './output.js';
import { limitText, ringText, ringTone, SOURCE_TONES } from './status-view.js';
import type { TopHistory, WatchedDevice, WatchedSource } from './top-history.js';
import { bytesText, countText, durationText, latencyText, percentText, rateText } from './units.js';

export const SORTS = ['name', 'rate', 'throttled'] as const;
export type Sort = (typeof SORTS)[number];

/** How the user looks at it. */
export interface TopView {
  readonly columns: number;
  readonly rows: number;
  readonly sort: Sort;
  /** Devices that are scrolled away above. */
  readonly offset: number;
  /** Why there is no news; undefined: there is. */
  readonly problem: string | undefined;
}

/** A column: its cells, and how wide it is. Columns that do not fit are left out, from the last on. */
interface TopColumn<Row> {
  readonly title: string;
  readonly width: number;
  readonly right?: true;
  readonly text: (row: Row) => string;
  readonly tone?: (row: Row) => Tone;
}

const GAP = 1;
const LEAST_SPARKLINE = 8;

/** In the order in which they are given up last. */
const DEVICE_COLUMNS: readonly TopColumn<WatchedDevice>[] = [
  { title: 'DEVICE', width: 14, text: ({ device }) => device.name, tone: () => 'strong' },
  { title: 'RATE', width: 12, right: true, text: ({ rates }) => rateText(rates.bytesPerSecond) },
  {
    title: 'RING',
    width: 13,
    text: ({ device }) => ringText(device),
    tone: ({ device }) => ringTone(device),
  },
  { title: 'REQ/S', width: 8, right: true, text: ({ rates }) => countText(rates.requestsPerSecond) },
  {
    title: 'HELD',
    width: 6,
    right: true,
    text: ({ rates }) => percentText(rates.throttled + rates.starved),
    tone: ({ rates }) => (rates.starved > 0 ? 'bad' : rates.throttled > 0 ? 'warn' : 'faint'),
  },
  { title: 'LIMIT', width: 16, text: ({ device }) => limitText(device.limit) },
  { title: 'OF IT', width: 6, right: true, text: usedText },
  { title: 'P50', width: 8, right: true, text: ({ device }) => latencyText(device.latency.p50Seconds) },
  { title: 'P99', width: 8, right: true, text: ({ device }) => latencyText(device.latency.p99Seconds) },
  { title: 'TOTAL', width: 9, right: true, text: ({ device }) => bytesText(device.bytes) },
];

const SOURCE_COLUMNS: readonly TopColumn<WatchedSource>[] = [
  { title: 'SOURCE', width: 24, text: ({ source }) => source.spec, tone: () => 'strong' },
  {
    title: 'STATE',
    width: 15,
    text: ({ source }) => (source.permanent ? 'failed for good' : source.state),
    tone: ({ source }) => SOURCE_TONES[source.state],
  },
  { title: 'RATE', width: 12, right: true, text: ({ bytesPerSecond }) => rateText(bytesPerSecond) },
  { title: 'FAILED', width: 6, right: true, text: ({ source }) => countText(source.failures) },
];

/** What part of its limit a device uses. */
function usedText({ device, rates }: WatchedDevice): string {
  if (device.limit === null) return '-';
  return percentText((rates.bytesPerSecond * device.limit.periodMs) / 1000 / device.limit.maxBytes);
}

/** The lines of a whole screen, `rows` of them. */
export function topLines(output: Pick<Output, 'colours'>, history: TopHistory, view: TopView): string[] {
  const { columns, rows } = view;
  const footer = fit('q quit  s sort by ' + view.sort + '  ↑↓ scroll', columns);
  const head = headLines(output, history, view);
  const sources = tableLines(output, SOURCE_COLUMNS, { rows: history.sources, columns, rest: reasonOf });
  const room = Math.max(0, rows - head.length - sources.length - 4);
  const sorted = sortDevices(history.devices, view.sort);
  const offset = Math.min(view.offset, Math.max(0, sorted.length - room));
  const shown = sorted.slice(offset, offset + room);
  const devices = tableLines(output, DEVICE_COLUMNS, { rows: shown, columns, rest: sparkOf });
  const more = sorted.length - shown.length;
  const lines = [
    ...head,
    '',
    ...devices,
    ...(more > 0 ? [toned(output, 'faint', fit(`${more} more, ${offset} of them above`, columns))] : ['']),
    ...sources,
  ].slice(0, rows - 1);
  while (lines.length < rows - 1) lines.push('');
  return [...lines, toned(output, 'faint', footer)];
}

/** How many devices there are to scroll through. */
export function lastOffset(history: TopHistory): number {
  return Math.max(0, history.devices.length - 1);
}

function headLines(output: Pick<Output, 'colours'>, { status }: TopHistory, view: TopView): string[] {
  const { columns, problem } = view;
  const trouble = problem === undefined ? [] : [toned(output, 'bad', fit(problem, columns))];
  if (status === undefined)
    return trouble.length > 0 ? trouble : [fit('vhost-rngd: waiting for an answer', columns)];
  const { version, pid, uptimeSeconds, health, devices } = status;
  const guests = devices.reduce((sum, { frontEnds }) => sum + frontEnds.length, 0);
  const text = `vhost-rngd ${version}  pid ${pid}  up ${durationText(uptimeSeconds)}  ${guests} guests on ${devices.length} devices`;
  const tone = { ok: 'good', degraded: 'warn', failing: 'bad' } as const;
  const healthText = fit(
    `health ${health.status}${health.reasons.length === 0 ? '' : `: ${health.reasons.join('; ')}`}`,
    columns,
  );
  return [fit(text, columns), toned(output, tone[health.status], healthText), ...trouble];
}

function sortDevices(devices: readonly WatchedDevice[], sort: Sort): WatchedDevice[] {
  const byName = (a: WatchedDevice, b: WatchedDevice): number => a.device.name.localeCompare(b.device.name);
  const measure = ({ rates }: WatchedDevice): number =>
    sort === 'rate' ? rates.bytesPerSecond : sort === 'throttled' ? rates.throttled + rates.starved : 0;
  return [...devices].sort((a, b) => measure(b) - measure(a) || byName(a, b));
}

function sparkOf({ history }: WatchedDevice, width: number): string {
  return width < LEAST_SPARKLINE ? '' : sparkline(history, width);
}

function reasonOf({ source }: WatchedSource, width: number): string {
  return source.reason === null || width < LEAST_SPARKLINE ? '' : fit(source.reason, width);
}

/** A title and a line for each row: as many columns as fit, and `rest` in what is left. */
function tableLines<Row>(
  output: Pick<Output, 'colours'>,
  all: readonly TopColumn<Row>[],
  table: {
    readonly rows: readonly Row[];
    readonly columns: number;
    readonly rest: (row: Row, width: number) => string;
  },
): string[] {
  let left = table.columns;
  const columns: TopColumn<Row>[] = [];
  for (const column of all) {
    if (column.width > left) break;
    columns.push(column);
    left -= column.width + GAP;
  }
  const gap = ' '.repeat(GAP);
  const title = columns.map((column) => fit(column.title, column.width, column.right)).join(gap);
  const lines = table.rows.map((row) =>
    [
      ...columns.map((column) => {
        const cell = fit(column.text(row), column.width, column.right);
        return column.tone === undefined ? cell : toned(output, column.tone(row), cell);
      }),
      table.rest(row, left),
    ].join(gap),
  );
  return [toned(output, 'faint', fit(title, table.columns)), ...lines];
}
