// How a daemon, its devices and its sources stand, as tables for people. Pure: what was answered in, text out.
import type { DeviceStatus, Health, SourceStatus, Status } from '../control/shapes.js';
import { type Output, printable, tableText, type Tone, toned } from './output.js';
import { bytesText, countText, durationText, latencyText } from '../units.js';

type Limit = DeviceStatus['limit'];

const HEALTH_TONES = { ok: 'good', degraded: 'warn', failing: 'bad' } as const;

/** `health: ok`, or with the reasons below it. */
export function healthText(output: Output, { status, reasons }: Health): string {
  const lines = reasons.map((reason) => `  ${printable(reason)}\n`);
  return `health: ${toned(output, HEALTH_TONES[status], status)}\n${lines.join('')}`;
}

/** `64.0 KiB per 1000 ms`, `no limit`. */
export function limitText(limit: Limit): string {
  if (limit === null) return 'none';
  const burst = limit.burstBytes > 0 ? ` +${bytesText(limit.burstBytes)}` : '';
  return `${bytesText(limit.maxBytes)} / ${latencyText(limit.periodMs / 1000).replace('.00', '')}${burst}`;
}

type Ring = DeviceStatus['frontEnds'][number]['ring'];

/** How much a ring is worth a look: the more, the higher. */
function urgency({ state, heldFor }: Ring): number {
  if (state === 'faulted') return 4;
  if (state === 'held') return heldFor === 'entropy' ? 3 : 2;
  return state === 'running' ? 1 : 0;
}

/** The ring of a device's front-ends that is most worth a look; undefined: it has none. */
function ringOf({ frontEnds }: DeviceStatus): Ring | undefined {
  return frontEnds.map(({ ring }) => ring).sort((a, b) => urgency(b) - urgency(a))[0];
}

/** What the rings of a device are doing, in a word or two. */
export function ringText(device: DeviceStatus): string {
  const ring = ringOf(device);
  if (ring === undefined || device.state === 'paused') return device.state;
  return ring.state === 'held' ? `held: ${ring.heldFor ?? ''}` : ring.state;
}

export function ringTone(device: DeviceStatus): Tone {
  const ring = ringOf(device);
  if (device.state === 'paused') return 'warn';
  if (ring === undefined) return 'faint';
  if (ring.state === 'faulted' || ring.heldFor === 'entropy') return 'bad';
  return ring.state === 'held' ? 'warn' : 'good';
}

function guestText({ frontEnds }: DeviceStatus): string {
  const [first, ...others] = frontEnds;
  if (first === undefined) return '-';
  if (others.length > 0) return `${frontEnds.length} guests`;
  return first.pid === 0 ? `uid ${first.uid}` : `pid ${first.pid}`;
}

/** A line for each device. */
export function devicesText(output: Output, devices: readonly DeviceStatus[]): string {
  if (devices.length === 0) return 'no devices: vhost-rngctl add NAME SOCKET adds one\n';
  const columns = [
    { title: 'DEVICE' },
    { title: 'RING' },
    { title: 'GUEST' },
    { title: 'REQUESTS', right: true },
    { title: 'BYTES', right: true },
    { title: 'LIMIT' },
    { title: 'THROTTLED', right: true },
    { title: 'P99', right: true },
    { title: 'SOURCES' },
  ];
  const rows = devices.map((device) => [
    toned(output, 'strong', device.name),
    toned(output, ringTone(device), ringText(device)),
    guestText(device),
    countText(device.requests),
    bytesText(device.bytes),
    limitText(device.limit),
    device.throttledSeconds === 0 ? '-' : durationText(device.throttledSeconds),
    latencyText(device.latency.p99Seconds),
    sourcesText(device),
  ]);
  return tableText(output, columns, rows);
}

function sourcesText({ sources, mix }: DeviceStatus): string {
  return `${sources.map(printable).join(', ')}${mix ? ' + kernel' : ''}`;
}

export const SOURCE_TONES = { starting: 'warn', healthy: 'good', slow: 'warn', failed: 'bad' } as const;

/** A line for each source, in order of preference. */
export function sourceTableText(output: Output, sources: readonly SourceStatus[]): string {
  const columns = [
    { title: 'SOURCE' },
    { title: 'STATE' },
    { title: 'TESTED', right: true },
    { title: 'FAILURES', right: true },
    { title: 'ALARMS', right: true },
    { title: 'FIPS', right: true },
    { title: 'REASON' },
  ];
  const rows = sources.map((source) => {
    const { repetition, adaptive, permanent } = source.alarms;
    return [
      toned(output, 'strong', printable(source.spec)),
      toned(output, SOURCE_TONES[source.state], source.permanent ? 'failed for good' : source.state),
      bytesText(source.bytes),
      countText(source.failures),
      countText(repetition + adaptive + permanent),
      `${countText(source.fips.failures)} of ${countText(source.fips.blocks)}`,
      source.reason === null ? '-' : printable(source.reason),
    ];
  });
  return tableText(output, columns, rows);
}

/** Everything at a glance. */
export function statusText(output: Output, status: Status): string {
  const { version, pid, uptimeSeconds, health, devices, sources } = status;
  const head = `vhost-rngd ${version}, pid ${pid}, up ${durationText(uptimeSeconds)}\n`;
  return [
    head + healthText(output, health),
    devicesText(output, devices),
    sourceTableText(output, sources),
  ].join('\n');
}

/** One device, a line for each fact. */
export function deviceText(output: Output, device: DeviceStatus): string {
  const facts: [string, string][] = [
    ['device', toned(output, 'strong', device.name)],
    ['socket', device.socket ?? 'an inherited one'],
    ['ring', toned(output, ringTone(device), ringText(device))],
    ['limit', limitText(device.limit)],
    ['weight', String(device.weight)],
    ['sources', sourcesText(device)],
    ...guestFacts(device),
    ['requests', countText(device.requests)],
    ['bytes', bytesText(device.bytes)],
    ['malformed chains', countText(device.malformedChains)],
    ['ring faults', countText(device.ringFaults)],
    [
      'connections',
      `${countText(device.connections)}, ${countText(device.refusedConnections)} refused; ${device.maxConnections} at a time`,
    ],
    ['throttled', durationText(device.throttledSeconds)],
    ['without entropy', durationText(device.starvedSeconds)],
    ['latency p50', latencyText(device.latency.p50Seconds)],
    ['latency p99', latencyText(device.latency.p99Seconds)],
    ...lastErrorFacts(device),
  ];
  return tableText(
    output,
    [],
    facts.map(([name, value]) => [toned(output, 'faint', name), value]),
  );
}

function guestFacts({ frontEnds }: DeviceStatus): [string, string][] {
  if (frontEnds.length === 0) return [['guest', 'none']];
  return frontEnds.flatMap(({ pid, uid, virtioFeatures, protocolFeatures, memory, ring }) => {
    const sealed = memory.sealed ? 'sealed' : 'guarded';
    const state = ring.state === 'held' ? `held: ${ring.heldFor ?? ''}` : ring.state;
    return [
      ['guest', `pid ${pid}, uid ${uid}`],
      ['  features', virtioFeatures.join(', ') || 'none yet'],
      ['  protocol', protocolFeatures.join(', ') || 'none yet'],
      ['  memory', `${bytesText(memory.bytes)} in ${memory.regions} regions, ${sealed}`],
      ['  ring', `${state}, size ${countText(ring.size)}`],
    ] satisfies [string, string][];
  });
}

function lastErrorFacts({ lastError }: DeviceStatus): [string, string][] {
  if (lastError === null) return [];
  const { time, message, code } = lastError;
  return [['last error', `${time} ${printable(message)} [${code}]`]];
}
