// Changes of a device in the words of the log.
import type { DeviceChange } from './data-plane-messages.js';
import type { Limit } from './limiter.js';

export function limitText(limit: Limit | undefined): string {
  if (limit === undefined) return 'no limit';
  const burst = limit.burstBytes > 0 ? ` and ${limit.burstBytes} once` : '';
  return `${limit.maxBytes} bytes per ${limit.periodMs} ms${burst}`;
}

/** `weight 5, paused`; `nothing` for a change of nothing. */
export function changeText(change: DeviceChange): string {
  const { weight, entropy, paused } = change;
  const said = [
    ...('limit' in change ? [limitText(change.limit)] : []),
    ...(weight === undefined ? [] : [`weight ${weight}`]),
    ...(entropy === undefined ? [] : [`source ${entropy.specs.join(', ')}${entropy.mix ? ', mixed' : ''}`]),
    ...(paused === undefined ? [] : [paused ? 'paused' : 'resumed']),
  ];
  return said.join(', ') || 'nothing';
}
