// The shape of the configuration file. Keys are named as the options are.
import * as v from 'valibot';
import {
  burstBytes,
  busyPollUs,
  connections,
  deviceName,
  logFormat,
  logLevel,
  maxBytes,
  memoryPolicy,
  memSlots,
  octalMode,
  path,
  periodMs,
  socketGroup,
  socketPath,
  sourceText,
  userName,
  weight,
} from './fields.js';

/** Settings of a device that stand at the top for all of them, or in its own table for itself. */
const perDevice = {
  'max-bytes': v.optional(maxBytes),
  period: v.optional(periodMs),
  'burst-bytes': v.optional(burstBytes),
  'socket-mode': v.optional(octalMode),
  'socket-group': v.optional(socketGroup),
  memory: v.optional(memoryPolicy),
  'mem-slots': v.optional(memSlots),
  connections: v.optional(connections),
  sources: v.optional(
    v.pipe(
      v.array(sourceText, 'expected a list of sources'),
      v.minLength(1, 'expected at least one source'),
      v.description('where entropy comes from, best first'),
    ),
  ),
  mix: v.optional(
    v.pipe(
      v.boolean('expected true or false'),
      v.description("mix the kernel's bytes into those of the sources, by XOR"),
    ),
  ),
};

/** Settings that stand at the top and that an option replaces. */
const general = {
  ...perDevice,
  'total-max-bytes': v.optional(
    v.pipe(
      maxBytes,
      v.description('at most so many bytes for all devices together in any period, shared fairly'),
    ),
  ),
  'total-period': v.optional(v.pipe(periodMs, v.description('length of that period in ms'))),
  'busy-poll-us': v.optional(busyPollUs),
  'log-format': v.optional(logFormat),
  'log-level': v.optional(logLevel),
  'state-file': v.optional(
    v.pipe(
      path,
      v.description('changes by the control socket are kept here and made again at the next start'),
    ),
  ),
  debug: v.optional(
    v.pipe(
      v.boolean('expected true or false'),
      v.description('let debuggers attach and core files be written: they hold entropy'),
    ),
  ),
  'allow-test-sources': v.optional(
    v.pipe(
      v.boolean('expected true or false'),
      v.description('allow file:PATH as a source, which is no entropy'),
    ),
  ),
};

export const GeneralShape = v.strictObject(general);
/** Settings with their values checked; what is not said is not there. */
export type General = v.InferOutput<typeof GeneralShape>;

export const DeviceTableShape = v.strictObject({
  name: deviceName,
  'socket-path': socketPath,
  ...perDevice,
  weight: v.optional(weight),
});
export type DeviceTable = v.InferOutput<typeof DeviceTableShape>;

export const ControlTableShape = v.strictObject({
  socket: v.optional(v.pipe(socketPath, v.description('path of the control socket'))),
  group: v.optional(v.pipe(socketGroup, v.description('who may connect to it, besides the daemon and root'))),
  admins: v.optional(
    v.pipe(v.array(userName, 'expected a list of users'), v.description('who may change things')),
  ),
  readers: v.optional(
    v.pipe(
      v.array(userName, 'expected a list of users'),
      v.description('who may look; without it whoever may connect'),
    ),
  ),
});
export type ControlTable = v.InferOutput<typeof ControlTableShape>;

export const FileShape = v.strictObject(
  {
    ...general,
    device: v.optional(
      v.pipe(
        v.array(DeviceTableShape, 'expected [[device]] tables'),
        v.description('one table for each device'),
      ),
    ),
    control: v.optional(v.pipe(ControlTableShape, v.description('the control socket'))),
  },
  'expected a table',
);
export type ConfigFile = v.InferOutput<typeof FileShape>;
