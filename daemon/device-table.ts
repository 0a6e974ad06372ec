// The devices of one data-plane thread by name, and the changes (of sources too) that the main thread asks for while they serve.
import { assertNever } from '../protocol/assert-never.js';
import type { Command, DeviceChange, SourceSetup } from './data-plane-messages.js';
import { FedSource } from './entropy/fed-queue.js';
import { SourceStatus } from './entropy/source-status.js';
import type { Take } from './handover/frontend-record.js';
import type { Keeping } from './handover/front-end-journal.js';
import type { Left } from './handover/inherited.js';
import { type DeviceContext, type DeviceOptions, RngDevice } from './rng-device.js';

/** Devices by name; the main thread has checked that a command fits. */
export class DeviceTable {
  private readonly context: DeviceContext;
  private readonly devices = new Map<string, RngDevice>();

  constructor(context: DeviceContext) {
    this.context = context;
  }

  /** Carries a command out, whole and at once. Throws only on a bug of ours. */
  carryOut(command: Command): void {
    switch (command.kind) {
      case 'addDevice':
        this.add(command.device);
        return;
      case 'removeDevice':
        this.named(command.name).close();
        this.devices.delete(command.name);
        return;
      case 'changeDevice':
        change(this.named(command.name), command.change);
        return;
      case 'addSource':
        this.addSource(command.source);
        return;
      case 'removeSource':
        this.context.pools.removeSource(command.spec);
        return;
      case 'changeTotal':
        this.context.budget.change(command.total);
        return;
      default:
        assertNever(command);
    }
  }

  /** All devices are there: they go on with what a process before has left; `take` gives fds of the open files among it. */
  goOn(left: Left['devices'], take: Take): void {
    for (const [name, leftToDevice] of left) this.named(name).goOn(leftToDevice, take);
  }

  /** Writes all front-ends down. */
  record(keeping: Keeping): void {
    for (const device of this.devices.values()) device.record(keeping);
  }

  private add(options: DeviceOptions): void {
    const device = new RngDevice(options, this.context);
    this.devices.set(options.name, device);
    device.open();
  }

  private addSource({ spec, queue, status }: SourceSetup): void {
    this.context.pools.addSource(new FedSource(spec.text, queue, new SourceStatus(status)));
    if (!queue.locked) this.logNotLocked();
  }

  /** Waiting entropy may be swapped out. */
  logNotLocked(): void {
    this.context.log(
      'warn',
      'pool_not_locked',
      'waiting entropy could not be locked in RAM: raise LimitMEMLOCK to 256 KiB or more',
    );
  }

  private named(name: string): RngDevice {
    const device = this.devices.get(name);
    if (device === undefined) throw new Error(`a command for ${name}, which is not there`);
    return device;
  }

  close(): void {
    for (const device of this.devices.values()) device.close();
    this.devices.clear();
  }
}

function change(device: RngDevice, wanted: DeviceChange): void {
  if (wanted.entropy !== undefined) device.setSources(wanted.entropy);
  if (wanted.weight !== undefined) device.setWeight(wanted.weight);
  if ('limit' in wanted) device.setLimit(wanted.limit);
  if (wanted.paused !== undefined) device.setPaused(wanted.paused);
}
