// Histograms out of buckets that other threads count in shared memory; prom-client's own could only count here.
import type { MetricValueWithName } from 'prom-client';

/** What one label value has counted: each bucket by itself, the last one what is above all bounds; and the sum, in seconds. */
export interface Counted {
  readonly labelled: string;
  readonly counts: readonly number[];
  readonly sumSeconds: number;
}

/** A histogram as the registry asks for it. */
export class CountedHistogram {
  /** The registry knows a metric by its name. */
  readonly name: string;
  private readonly help: string;
  private readonly label: string;
  private readonly bounds: readonly number[];
  private readonly read: () => readonly Counted[];

  /** `about.bounds`: upper bounds of the buckets, in seconds. */
  constructor(
    about: {
      readonly name: string;
      readonly help: string;
      readonly label: string;
      readonly bounds: readonly number[];
    },
    read: () => readonly Counted[],
  ) {
    this.name = about.name;
    this.help = about.help;
    this.label = about.label;
    this.bounds = about.bounds;
    this.read = read;
  }

  /** What the registry asks of a metric. */
  get(): Promise<object> {
    const values = this.read().flatMap((counted) => this.lines(counted));
    return Promise.resolve({ name: this.name, help: this.help, type: 'histogram', values });
  }

  /** Each bucket counts what is at most its bound, those below included. */
  private lines({ labelled, counts, sumSeconds }: Counted): MetricValueWithName<string>[] {
    const labels = { [this.label]: labelled };
    let below = 0;
    const buckets = counts.map((count, i) => {
      below += count;
      const le = this.bounds[i] ?? '+Inf';
      return { metricName: `${this.name}_bucket`, labels: { ...labels, le }, value: below };
    });
    return [
      ...buckets,
      { metricName: `${this.name}_sum`, labels, value: sumSeconds },
      { metricName: `${this.name}_count`, labels, value: below },
    ];
  }
}
