// /metrics: the counters in the text form of Prometheus. Loaded at the first scrape.
//
// prom-client gives types, escaping and the text; the values are read from shared memory at each scrape.
import { readdirSync } from 'node:fs';
import { Counter, Gauge, type Histogram, Registry } from 'prom-client';
import { REFILL_BOUNDS_SECONDS } from '../entropy/refill-times.js';
import type { SourceStatus as SharedStatus } from '../entropy/source-status.js';
import { LATENCY_BOUNDS_SECONDS, SAMPLE_EVERY } from '../latency.js';
import type { ServedDevice } from '../served-device.js';
import type { ConnectionCounts } from './connections.js';
import { CountedHistogram } from './histogram.js';
import type { DeviceStatus, Health, SourceStatus } from './shapes.js';

/** Scrapes within this time get the same text, so that a flood of them costs little. Ours. */
const KEEP_MS = 100;

/** What is measured. */
export interface Measured {
  readonly version: string;
  readonly droppedLogLines: number;
  readonly controlCounts: Readonly<ConnectionCounts> | undefined;
  devices(): readonly DeviceStatus[];
  health(): Health;
  sources(): readonly SourceStatus[];
  servedDevices(): Iterable<ServedDevice>;
  /** What the readers count. */
  sourceCounts(): readonly { readonly spec: string; readonly status: SharedStatus }[];
}

/** Builds the text. */
export class Metrics {
  private readonly registry = new Registry();
  private readonly measured: Measured;
  private kept: { readonly untilMs: number; readonly text: Promise<string> } | undefined;

  constructor(measured: Measured) {
    this.measured = measured;
    this.defineProcess();
    this.defineHealth();
    this.defineControl();
    this.defineDevices();
    for (const histogram of [latencies(measured), refills(measured)])
      this.registry.registerMetric(histogram as unknown as Histogram);
  }

  /** The text as of now, or of a moment ago. */
  async text(): Promise<{ text: string; contentType: string }> {
    const now = performance.now();
    if (this.kept === undefined || now > this.kept.untilMs)
      this.kept = { untilMs: now + KEEP_MS, text: this.write() };
    return { text: await this.kept.text, contentType: this.registry.contentType };
  }

  /** One metric after the other, and whatever else the thread has to do in between: 256 devices take some time. */
  private async write(): Promise<string> {
    const texts: string[] = [];
    for (const name of this.names()) {
      texts.push(await this.registry.getSingleMetricAsString(name));
      await new Promise((resolve) => setImmediate(resolve));
    }
    return `${texts.join('\n\n')}\n`;
  }

  /** All metrics, in order. */
  names(): string[] {
    return this.registry.getMetricsAsArray().map(({ name }) => name);
  }

  private gauge(name: string, help: string, read: (gauge: Gauge) => void, labelNames: string[] = []): void {
    const collect = function (this: Gauge): void {
      this.reset();
      read(this);
    };
    this.registry.registerMetric(new Gauge({ name, help, labelNames, registers: [], collect }));
  }

  private counter(
    name: string,
    help: string,
    read: (counter: Counter) => void,
    labelNames: string[] = [],
  ): void {
    const collect = function (this: Counter): void {
      this.reset();
      read(this);
    };
    this.registry.registerMetric(new Counter({ name, help, labelNames, registers: [], collect }));
  }

  private defineProcess(): void {
    const startSeconds = (Date.now() - performance.now()) / 1000;
    this.gauge('process_start_time_seconds', 'Start of the process since the epoch', (gauge) =>
      gauge.set(startSeconds),
    );
    this.gauge('process_resident_memory_bytes', 'Resident memory', (gauge) =>
      gauge.set(process.memoryUsage.rss()),
    );
    this.gauge('process_open_fds', 'Open file descriptors', (gauge) =>
      gauge.set(readdirSync('/proc/self/fd').length),
    );
    this.counter('process_cpu_seconds_total', 'CPU time of all threads', (counter) => {
      const { user, system } = process.cpuUsage();
      counter.inc((user + system) / 1e6);
    });
    const labels = { version: this.measured.version, node: process.versions.node };
    this.gauge(
      'vhost_rngd_build_info',
      'Always 1; the labels say what runs',
      (gauge) => gauge.set(labels, 1),
      Object.keys(labels),
    );
  }

  private defineHealth(): void {
    const { measured } = this;
    this.gauge(
      'vhost_rngd_health',
      '1 for the state of health that holds, 0 for the others',
      (gauge) => {
        const { status } = measured.health();
        for (const state of ['ok', 'degraded', 'failing'])
          gauge.set({ status: state }, state === status ? 1 : 0);
      },
      ['status'],
    );
    this.gauge(
      'vhost_rngd_source_state',
      '1 for the state that a source is in, 0 for the others',
      (gauge) => {
        for (const { spec, state } of measured.sources())
          for (const other of ['starting', 'healthy', 'slow', 'failed'])
            gauge.set({ source: spec, state: other }, state === other ? 1 : 0);
      },
      ['source', 'state'],
    );
    this.defineSources();
    this.counter(
      'vhost_rngd_log_lines_dropped_total',
      'Log lines lost because standard error was full',
      (counter) => counter.inc(measured.droppedLogLines),
    );
  }

  private defineSources(): void {
    const metrics: readonly (readonly [string, string, (source: SourceStatus) => number])[] = [
      ['bytes_total', 'Bytes that have passed the tests of their source', (s) => s.bytes],
      ['failures_total', 'How often a source has failed', (s) => s.failures],
      ['reopens_total', 'How often a source was opened, or connected to, again', (s) => s.reopens],
      ['repeated_blocks_total', 'Blocks of 64 bytes that a source had given before', (s) => s.repeatedBlocks],
      ['fips_blocks_total', 'FIPS 140-2 blocks that were judged', (s) => s.fips.blocks],
      ['fips_failures_total', 'FIPS 140-2 blocks that failed', (s) => s.fips.failures],
    ];
    for (const [name, help, value] of metrics) {
      this.counter(
        `vhost_rngd_source_${name}`,
        help,
        (counter) => {
          for (const source of this.measured.sources()) counter.inc({ source: source.spec }, value(source));
        },
        ['source'],
      );
    }
    this.gauge(
      'vhost_rngd_source_permanent',
      '1 while a source is out until an operator enables it again',
      (gauge) => {
        for (const { spec, permanent } of this.measured.sources())
          gauge.set({ source: spec }, permanent ? 1 : 0);
      },
      ['source'],
    );
    this.counter(
      'vhost_rngd_source_alarms_total',
      'Windows that a health test has found fault with',
      (counter) => {
        for (const { spec, alarms } of this.measured.sources())
          for (const [test, count] of Object.entries(alarms)) counter.inc({ source: spec, test }, count);
      },
      ['source', 'test'],
    );
  }

  private defineControl(): void {
    const counts: readonly (readonly [keyof ConnectionCounts, string, string])[] = [
      ['refused', 'refused', 'Connections to the control socket of users who may not read'],
      ['displaced', 'displaced', 'Connections to the control socket closed to make room'],
      ['timedOut', 'timed_out', 'Connections to the control socket closed for taking too long'],
    ];
    for (const [key, name, help] of counts)
      this.counter(`vhost_rngd_control_connections_${name}_total`, help, (counter) =>
        counter.inc(this.measured.controlCounts?.[key] ?? 0),
      );
  }

  private defineDevices(): void {
    for (const { name, help, value } of DEVICE_METRICS) {
      const set = (metric: { inc(labels: object, value: number): void }): void => {
        for (const device of this.measured.devices()) {
          const now = value(device);
          if (now !== undefined) metric.inc({ device: device.name }, now);
        }
      };
      if (name.endsWith('_total')) this.counter(`vhost_rngd_device_${name}`, help, set, ['device']);
      else this.gauge(`vhost_rngd_device_${name}`, help, set, ['device']);
    }
  }
}

/** The metrics that each device has; undefined: it has no such value. */
const DEVICE_METRICS: readonly {
  readonly name: string;
  readonly help: string;
  readonly value: (device: DeviceStatus) => number | undefined;
}[] = [
  { name: 'requests_total', help: 'Requests completed with at least one byte', value: (d) => d.requests },
  { name: 'bytes_total', help: 'Bytes of entropy delivered', value: (d) => d.bytes },
  { name: 'malformed_chains_total', help: 'Requests that broke a rule', value: (d) => d.malformedChains },
  { name: 'ring_faults_total', help: 'Rings stopped for what guest or VMM did', value: (d) => d.ringFaults },
  {
    name: 'connection_faults_total',
    help: 'Connections closed for what the VMM sent',
    value: (d) => d.connectionFaults,
  },
  { name: 'connections_total', help: 'Front-ends that have connected', value: (d) => d.connections },
  {
    name: 'refused_connections_total',
    help: 'Further front-ends that were closed at once',
    value: (d) => d.refusedConnections,
  },
  {
    name: 'throttled_seconds_total',
    help: 'Time for which requests were held for a limit',
    value: (d) => d.throttledSeconds,
  },
  {
    name: 'starved_seconds_total',
    help: 'Time for which requests were held for want of entropy',
    value: (d) => d.starvedSeconds,
  },
  {
    name: 'connected',
    help: 'Front-ends that are connected',
    value: (d) => d.frontEnds.length,
  },
  {
    name: 'paused',
    help: '1 while an operator holds its requests',
    value: (d) => (d.state === 'paused' ? 1 : 0),
  },
  { name: 'weight', help: 'Part of the total against the other devices', value: (d) => d.weight },
  {
    name: 'limit_bytes',
    help: 'Bytes allowed in a period, where there is a limit',
    value: (d) => d.limit?.maxBytes,
  },
  {
    name: 'limit_period_seconds',
    help: 'The period of the limit',
    value: (d) => (d.limit === null ? undefined : d.limit.periodMs / 1000),
  },
];

function latencies(measured: Measured): CountedHistogram {
  const about = {
    name: 'vhost_rngd_request_latency_seconds',
    help: `From wake-up to the signal to the guest; one round in ${SAMPLE_EVERY} is timed`,
    label: 'device',
    bounds: LATENCY_BOUNDS_SECONDS,
  };
  return new CountedHistogram(about, () =>
    [...measured.servedDevices()].map(({ name, latencyCounts, latencySumMs }) => ({
      labelled: name,
      counts: latencyCounts,
      sumSeconds: latencySumMs / 1000,
    })),
  );
}

function refills(measured: Measured): CountedHistogram {
  const about = {
    name: 'vhost_rngd_source_refill_seconds',
    help: 'From asking a source for a block of 2560 bytes until it has been read and tested',
    label: 'source',
    bounds: REFILL_BOUNDS_SECONDS,
  };
  return new CountedHistogram(about, () =>
    measured.sourceCounts().map(({ spec, status }) => ({
      labelled: spec,
      counts: [...status.refills],
      sumSeconds: status.figure('refillSumMs') / 1000,
    })),
  );
}
