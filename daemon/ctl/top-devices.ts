// The devices of the live view: what is shown of each, and in which order they stand.
import type { DeviceStatus } from '../control/shapes.js';
import { printable } from './output.js';
import { limitText, ringText, ringTone } from './status-view.js';
import { countText, latencyText, percentText, rateText } from '../units.js';
import { sparkline, widthOf } from './cells.js';
import type { Column, Style } from './top-columns.js';
import type { TopHistory, Rates, TopTrack } from './top-history.js';

/** One device as it is shown. */
export interface DeviceRow {
  readonly device: DeviceStatus;
  readonly track: TopTrack;
}

/** What devices can be sorted by; all but names from the most to the least. */
export const SORT_KEYS = ['name', 'rate', 'requests', 'used', 'held'] as const;
export type SortKey = (typeof SORT_KEYS)[number];

/** web2 stands before web10. */
const NAMES = new Intl.Collator('en', { numeric: true });
const UNKNOWN = '-';
/** Above it a limit is as good as used up: the last request did not fit. */
const NEARLY_ALL = 0.95;
const LONGEST_NAME_COLUMNS = 28;
const SHORTEST_NAME_COLUMNS = 6;

/** Which columns go first when there is little room: the last ones. */
export const DEVICE_RANKS = [
  'DEVICE',
  'RATE',
  'HISTORY',
  'USED',
  'STATE',
  'REQ/S',
  'THROTTLED',
  'STARVED',
  'P99',
  'LIMIT',
  'P50',
] as const;

/** How it is served, how its limit and the want of entropy hold it up, and how quickly it is answered. */
const FIGURE_COLUMNS: readonly Column<DeviceRow>[] = [
  {
    title: 'RATE',
    width: 10,
    right: true,
    text: ofRates(({ bytesPerSecond }) => rateText(bytesPerSecond)),
  },
  {
    title: 'REQ/S',
    width: 7,
    right: true,
    text: ofRates(({ requestsPerSecond }) => countText(requestsPerSecond)),
  },
  { title: 'LIMIT', width: 19, text: ({ device }) => limitText(device.limit) },
  {
    title: 'USED',
    width: 5,
    right: true,
    text: (row) => partText(limitUse(row)),
    tone: (row) => ((limitUse(row) ?? 0) >= NEARLY_ALL ? 'warn' : undefined),
  },
  {
    title: 'THROTTLED',
    width: 9,
    right: true,
    text: ofRates(({ throttled }) => partText(throttled)),
    tone: ({ track }) => ((track.latest?.throttled ?? 0) > 0 ? 'warn' : undefined),
  },
  {
    title: 'STARVED',
    width: 7,
    right: true,
    text: ofRates(({ starved }) => partText(starved)),
    tone: ({ track }) => ((track.latest?.starved ?? 0) > 0 ? 'bad' : undefined),
  },
  { title: 'P50', width: 7, right: true, text: ({ device }) => latencyText(device.latency.p50Seconds) },
  { title: 'P99', width: 7, right: true, text: ({ device }) => latencyText(device.latency.p99Seconds) },
];

/** The columns in the order in which they stand. */
export function deviceColumns(rows: readonly DeviceRow[], style: Style): Column<DeviceRow>[] {
  const longest = Math.max(SHORTEST_NAME_COLUMNS, ...rows.map(({ device }) => widthOf(nameOf(device))));
  return [
    {
      title: 'DEVICE',
      width: Math.min(longest, LONGEST_NAME_COLUMNS),
      text: ({ device }) => nameOf(device),
      tone: () => 'strong',
    },
    {
      title: 'STATE',
      width: 13,
      text: ({ device }) => ringText(device),
      tone: ({ device }) => ringTone(device),
    },
    ...FIGURE_COLUMNS,
    {
      title: 'HISTORY',
      width: 8,
      wide: 60,
      text: ({ track }, width) => sparkline(track.past, width, style.glyphs),
    },
  ];
}

/** The devices as they are to stand; of two alike the one whose name comes first. */
export function sortedRows(
  devices: readonly DeviceStatus[],
  history: TopHistory,
  key: SortKey,
): readonly DeviceRow[] {
  const rows = devices.map((device) => ({ device, track: history.device(device.name) }));
  const byName = (a: DeviceRow, b: DeviceRow): number => NAMES.compare(a.device.name, b.device.name);
  return rows.sort((a, b) => weightOf(b, key) - weightOf(a, key) || byName(a, b));
}

function weightOf(row: DeviceRow, key: SortKey): number {
  const { latest } = row.track;
  switch (key) {
    case 'name':
      return 0;
    case 'rate':
      return latest?.bytesPerSecond ?? -1;
    case 'requests':
      return latest?.requestsPerSecond ?? -1;
    case 'used':
      return limitUse(row) ?? -1;
    case 'held':
      return latest === null ? -1 : latest.throttled + latest.starved;
  }
}

function limitUse({ device, track }: DeviceRow): number | null {
  return device.limit === null ? null : track.limitUse(device.limit);
}

function ofRates(text: (rates: Rates) => string): (row: DeviceRow) => string {
  return ({ track }) => (track.latest === null ? UNKNOWN : text(track.latest));
}

function partText(part: number | null): string {
  return part === null ? UNKNOWN : percentText(part);
}

function nameOf({ name }: DeviceStatus): string {
  return printable(name);
}
