// The live view as lines: what is known and the size of the terminal in, text out. Pure.
//
// From top to bottom: the daemon and its health, all devices together, the devices, the sources, the keys. Where there is
// little room the devices keep theirs longest.
import type { Health, SourceStatus, Status } from '../control/shapes.js';
import { printable, toned } from './output.js';
import { SOURCE_TONES } from './status-view.js';
import { countText, durationText, rateText } from '../units.js';
import { clipped, sparkline, widthOf } from './cells.js';
import { chosenColumns, type Column, headLine, rowLine, type Style } from './top-columns.js';
import { DEVICE_RANKS, deviceColumns, type SortKey, sortedRows } from './top-devices.js';
import type { TopHistory, TopTrack } from './top-history.js';

/** What is shown. */
export interface TopState {
  /** The last answer. */
  readonly status: Status;
  readonly history: TopHistory;
  /** Why there is no newer answer, and since when; null: the daemon answers. */
  readonly silence: { readonly reason: string; readonly seconds: number } | null;
  readonly sort: SortKey;
  /** The first device that is wanted in view; {@link Frame.first} is the one that is. */
  readonly first: number;
  readonly intervalSeconds: number;
}

/** Of the terminal; Infinity: whatever is needed. */
export interface Size {
  readonly columns: number;
  readonly rows: number;
}

/** What is drawn. */
export interface Frame {
  /** At most as many as there are rows, none wider than there are columns. */
  readonly lines: readonly string[];
  /** Devices in view: the first, and how many. */
  readonly first: number;
  readonly count: number;
}

/** Below so many rows no empty line is given away, and below the second the sources are not shown. Ours. */
const ROOMY_ROWS = 16;
const ROWS_WITH_SOURCES = 10;
const MOST_REASONS = 5;
const SHOWN_TOTAL_MARKS = 30;
const HEALTH_TONES = { ok: 'good', degraded: 'warn', failing: 'bad' } as const;

/** Draws `state` for a terminal of `size`. */
export function drawTop(state: TopState, size: Size, style: Style): Frame {
  const { status, history } = state;
  const space = size.rows >= ROOMY_ROWS ? [''] : [];
  const head = [...headLines(state, size, style), ...space];
  const foot = size.rows >= ROWS_WITH_SOURCES ? [...space, ...sourceLines(status, history, size, style)] : [];
  const hasKeys = size.rows !== Infinity;
  // One line for the titles, one for the keys.
  const room = Math.max(1, size.rows - head.length - foot.length - 1 - (hasKeys ? 1 : 0));
  const rows = sortedRows(status.devices, history, state.sort);
  const first = Math.max(0, Math.min(state.first, rows.length - room));
  const shown = rows.slice(first, room === Infinity ? undefined : first + room);
  // Of all, so that the table does not jump when it is scrolled.
  const columns = chosenColumns(deviceColumns(rows, style), DEVICE_RANKS, size.columns);
  const table = [headLine(columns, style), ...shown.map((row) => rowLine(columns, row, style))];
  if (rows.length === 0)
    table.push(clipped('no devices: vhost-rngctl add NAME SOCKET adds one', size.columns, style.glyphs));
  const filled = hasKeys ? Array<string>(Math.max(0, room - Math.max(1, shown.length))).fill('') : [];
  const keys = hasKeys ? [keysLine(state, [first, shown.length, rows.length], size, style)] : [];
  const above = [...head, ...table, ...filled, ...foot].slice(0, Math.max(0, size.rows - keys.length));
  return { lines: [...above, ...keys].slice(0, size.rows), first, count: shown.length };
}

function headLines({ status, history, silence }: TopState, size: Size, style: Style): string[] {
  const { version, pid, uptimeSeconds, health, devices } = status;
  const name = `vhost-rngd ${printable(version)}`;
  const about = `pid ${pid}, up ${durationText(uptimeSeconds)}`;
  const guests = devices.reduce((sum, { frontEnds }) => sum + frontEnds.length, 0);
  const { total } = history;
  const sums =
    total === null
      ? ''
      : `, ${rateText(total.bytesPerSecond)}, ${countText(total.requestsPerSecond)} requests/s`;
  return [
    joined([[name, 'strong'], [about]], size, style),
    ...(silence === null ? healthLines(health, size, style) : silenceLines(silence, size, style)),
    joined(
      [
        [`${numbered(devices.length, 'device')}, ${numbered(guests, 'guest')}${sums}`],
        [sparkline(history.totalPast, Math.min(SHOWN_TOTAL_MARKS, history.totalPast.length), style.glyphs)],
      ],
      size,
      style,
    ),
  ];
}

function numbered(count: number, what: string): string {
  return `${countText(count)} ${what}${count === 1 ? '' : 's'}`;
}

function healthLines({ status, reasons }: Health, size: Size, style: Style): string[] {
  const tone = HEALTH_TONES[status];
  const most = Math.max(1, Math.min(MOST_REASONS, Math.floor(size.rows / 5)));
  const shown = reasons.slice(0, size.rows === Infinity ? undefined : most);
  const more = reasons.length - shown.length;
  const verdict = `health ${status}${more > 0 ? ` (${more} more reasons: vhost-rngctl health)` : ''}`;
  return [
    joined([[verdict, tone]], size, style),
    ...shown.map((reason) => joined([[`  ${printable(reason)}`]], size, style)),
  ];
}

function silenceLines(
  { reason, seconds }: NonNullable<TopState['silence']>,
  size: Size,
  style: Style,
): string[] {
  const since = `NO ANSWER for ${durationText(seconds)}: what is shown is old; trying again`;
  return [joined([[since, 'bad']], size, style), joined([[`  ${printable(reason)}`]], size, style)];
}

interface SourceRow {
  readonly source: SourceStatus;
  readonly track: TopTrack;
}

const SOURCE_RANKS = ['SOURCE', 'STATE', 'RATE', 'HISTORY', 'REASON', 'FAILURES'] as const;

function sourceLines({ sources }: Status, history: TopHistory, size: Size, style: Style): string[] {
  const rows = sources.map((source) => ({ source, track: history.source(source.spec) }));
  const most = size.rows === Infinity ? rows.length : Math.max(1, Math.floor(size.rows / 4) - 1);
  // Those in trouble are the ones to see, when there is no room for all.
  const shown =
    rows.length <= most
      ? rows
      : [...rows].sort((a, b) => Number(isWell(a)) - Number(isWell(b))).slice(0, most);
  const columns = chosenColumns(sourceColumns(rows, style), SOURCE_RANKS, size.columns);
  return [headLine(columns, style), ...shown.map((row) => rowLine(columns, row, style))];
}

function isWell({ source }: SourceRow): boolean {
  return source.state === 'healthy';
}

function sourceColumns(rows: readonly SourceRow[], style: Style): Column<SourceRow>[] {
  const longest = Math.max(6, ...rows.map(({ source }) => widthOf(printable(source.spec))));
  const longestState = Math.max(8, ...rows.map(({ source }) => stateText(source).length));
  return [
    {
      title: 'SOURCE',
      width: Math.min(28, longest),
      text: ({ source }) => printable(source.spec),
      tone: () => 'strong',
    },
    {
      title: 'STATE',
      width: longestState,
      text: ({ source }) => stateText(source),
      tone: ({ source }) => SOURCE_TONES[source.state],
    },
    {
      title: 'RATE',
      width: 10,
      right: true,
      text: ({ track }) => (track.latest === null ? '-' : rateText(track.latest.bytesPerSecond)),
    },
    { title: 'FAILURES', width: 8, right: true, text: ({ source }) => countText(source.failures) },
    { title: 'HISTORY', width: 8, text: ({ track }, width) => sparkline(track.past, width, style.glyphs) },
    {
      title: 'REASON',
      width: 10,
      wide: 200,
      text: ({ source }) =>
        source.reason === null || source.state === 'healthy' ? '-' : printable(source.reason),
    },
  ];
}

function stateText({ permanent, state }: SourceStatus): string {
  return permanent ? 'failed for good' : state;
}

function keysLine(
  { sort, intervalSeconds }: TopState,
  [first, count, total]: readonly [number, number, number],
  size: Size,
  style: Style,
): string {
  const place = count < total ? `${first + 1}-${first + count} of ${total}` : '';
  const keys = `q quit  s sort: ${sort}  ${count < total ? `↑↓ scroll ${place}  ` : ''}every ${intervalSeconds} s`;
  return joined([[style.glyphs.cut === '~' ? keys.replace('↑↓', 'j k') : keys, 'faint']], size, style);
}

/** Parts beside each other, as far as they fit; each in its tone. */
function joined(
  parts: readonly (readonly [text: string, tone?: Parameters<typeof toned>[1]])[],
  { columns }: Size,
  style: Style,
): string {
  let room = columns;
  let line = '';
  for (const [text, tone] of parts) {
    const gap = line === '' ? '' : '  ';
    const shown = clipped(text, room - gap.length, style.glyphs);
    if (shown === '') break;
    room -= gap.length + widthOf(shown);
    line += gap + (tone === undefined ? shown : toned(style, tone, shown));
  }
  return line;
}
