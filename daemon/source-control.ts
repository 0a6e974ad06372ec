// What the daemon draws from, and every change of that while guests run: sources are added, removed and put in order. Devices
// without sources of their own follow. The caller makes changes one after the other.
import { Fault } from '../protocol/fault.js';
import { FieldFault } from './control/route.js';
import type { NewSource, SourceStatus } from './control/shapes.js';
import type { DataPlane } from './data-plane.js';
import { MIXED_IN, type SourceChoice } from './entropy/pools.js';
import { checkSources } from './entropy/source-check.js';
import { fullSourceText, parseSourceSpec, type SourceSpec } from './entropy/source-spec.js';
import type { ServedDevice } from './served-device.js';
import { sourceStatuses } from './source-board.js';
import { chooseSources, type WantedSources } from './source-choice.js';

/** What it needs of the service. */
export interface SourceContext {
  readonly plane: DataPlane;
  readonly devices: () => Iterable<ServedDevice>;
  readonly allowTestSources: () => boolean;
}

/** The sources of one daemon. */
export class SourceControl {
  private readonly context: SourceContext;
  /** All that are read: those of the daemon in order, then those that only devices of their own draw from. */
  private running: readonly SourceSpec[];
  /** Texts of those that devices draw from which say nothing else. */
  private order: readonly string[];

  constructor(context: SourceContext, running: readonly SourceSpec[], order: readonly string[]) {
    this.context = context;
    this.running = running;
    this.order = order;
  }

  /** What a device draws from that says nothing else. */
  get defaults(): readonly string[] {
    return this.order;
  }

  /** The same as an operator writes it. */
  get defaultTexts(): string[] {
    return this.order.map((text) => {
      const spec = this.find(text);
      return spec === undefined ? text : fullSourceText(spec);
    });
  }

  statuses(): SourceStatus[] {
    return sourceStatuses(this.context.plane.readers.watch, this.running);
  }

  private find(text: string): SourceSpec | undefined {
    return this.running.find((spec) => spec.text === text);
  }

  /** The choice of a device, of sources that are read. */
  choose(wanted: WantedSources, before: SourceChoice): SourceChoice | Fault {
    return chooseSources(wanted, before, {
      sources: this.running,
      allowTestSources: this.context.allowTestSources(),
      defaults: this.order,
    });
  }

  /** Draws from a source more. */
  async add({ source, position }: NewSource): Promise<SourceStatus | Fault> {
    const spec = this.parse(source, 'source');
    if (spec instanceof Fault) return spec;
    if (this.order.includes(spec.text))
      return new Fault(
        'request',
        'source_exists',
        `expected a new source, got ${spec.text}, which is drawn from`,
      );
    const place = Math.min(position ?? this.order.length, this.order.length);
    const before = this.order.slice(0, place);
    const failed = await this.use([...before, spec.text, ...this.order.slice(place)], [spec]);
    return failed ?? this.statuses().find((status) => status.spec === spec.text) ?? this.unknown(spec.text);
  }

  /** Draws from these, in this order. */
  async put(texts: readonly string[]): Promise<Fault | undefined> {
    const specs: SourceSpec[] = [];
    for (const text of texts) {
      const spec = this.parse(text, 'sources');
      if (spec instanceof Fault) return spec;
      if (specs.some((other) => other.text === spec.text))
        return new FieldFault('sources', `expected each source once, got ${spec.text} twice`);
      specs.push(spec);
    }
    return this.use(
      specs.map(({ text }) => text),
      specs,
    );
  }

  /** Draws from a source no more. */
  async remove(text: string): Promise<Fault | undefined> {
    const parsed = parseSourceSpec(text, true);
    const spec = parsed instanceof Fault ? undefined : this.find(parsed.text);
    if (spec === undefined) return this.unknown(text);
    const users = [...this.context.devices()].filter(
      ({ ownSources, entropy }) => ownSources && entropy.specs.includes(spec.text),
    );
    if (users.length > 0) {
      const names = users.map(({ name }) => name).join(', ');
      return new Fault(
        'request',
        'source_in_use',
        `expected a source that no device has chosen for itself, got ${spec.text}, which ${names} draws from: give that device others first`,
      );
    }
    const left = this.order.filter((other) => other !== spec.text);
    return left.length === 0
      ? new Fault(
          'request',
          'last_source',
          `expected another source besides ${spec.text}, got none: add one first`,
        )
      : this.use(left, []);
  }

  /** Tries sources that have failed again, or `only` one of them. */
  enable(only?: string): readonly string[] | Fault {
    if (only === undefined) return this.context.plane.readers.enable();
    const parsed = parseSourceSpec(only, true);
    const spec = parsed instanceof Fault ? undefined : this.find(parsed.text);
    return spec === undefined ? this.unknown(only) : this.context.plane.readers.enable(spec.text);
  }

  private parse(text: string, field: string): SourceSpec | Fault {
    const spec = parseSourceSpec(text, this.context.allowTestSources());
    if (spec instanceof Fault) return new FieldFault(field, spec.message);
    const known = this.find(spec.text);
    return known !== undefined && known.minEntropy !== spec.minEntropy
      ? new FieldFault(
          field,
          `expected min-entropy ${known.minEntropy} for ${spec.text}, as it is read with, got ${spec.minEntropy}: remove it first`,
        )
      : spec;
  }

  /** Makes `order` the daemon's, once what is new of `specs` could be opened; what nobody draws from any more ends. */
  private async use(order: readonly string[], specs: readonly SourceSpec[]): Promise<Fault | undefined> {
    const fresh = specs.filter(({ text }) => this.find(text) === undefined);
    const failed = (await checkSources(fresh)) ?? (await this.ensure(fresh)) ?? (await this.follow(order));
    return failed ?? this.prune();
  }

  /** Reads what is not read yet of `specs`, which could be opened a moment ago. */
  async ensure(specs: readonly SourceSpec[]): Promise<Fault | undefined> {
    for (const spec of specs) {
      if (this.find(spec.text) !== undefined) continue;
      if (!(await this.context.plane.addSource(spec))) return silent();
      this.running = [...this.running, spec];
    }
    return undefined;
  }

  /** Makes `order`, all of which is read, the daemon's; devices follow. */
  async follow(order: readonly string[]): Promise<Fault | undefined> {
    this.order = order;
    for (const device of this.context.devices()) {
      if (device.ownSources) continue;
      const change = { entropy: { specs: order, mix: device.entropy.mix } };
      if (!(await this.context.plane.command({ kind: 'changeDevice', name: device.name, change })))
        return silent();
      device.take(change);
    }
    const listed = order.flatMap((text) => this.find(text) ?? []);
    this.running = [...listed, ...this.running.filter(({ text }) => !order.includes(text))];
    return undefined;
  }

  /** Ends what nobody draws from any more. */
  async prune(): Promise<Fault | undefined> {
    const devices = [...this.context.devices()];
    const needed = new Set([...this.order, ...devices.flatMap(({ entropy }) => entropy.specs)]);
    if (devices.some(({ entropy }) => entropy.mix)) needed.add(MIXED_IN);
    for (const { text } of this.running) {
      if (needed.has(text)) continue;
      if (!(await this.context.plane.removeSource(text))) return silent();
      this.running = this.running.filter((spec) => spec.text !== text);
    }
    return undefined;
  }

  private unknown(text: string): Fault {
    const there = this.running.map((spec) => spec.text).join(', ');
    return new Fault(
      'request',
      'unknown_source',
      `expected a source that is drawn from (${there}), got ${text}`,
    );
  }
}

/** The data plane has not answered in time; the change is made when it does. */
export function silent(): Fault {
  return new Fault(
    'request',
    'data_plane_silent',
    'the data plane does not answer: the change is made when it does',
  );
}
