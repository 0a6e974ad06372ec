// The JSON that the control socket gives and takes, as schemas: requests are checked with them, /openapi.json is made of
// them, and the types of the code are theirs.
//
// Nothing here can hold entropy, a buffer or a guest address: a status is counts, names and states only.
import * as v from 'valibot';
import {
  connections,
  deviceName,
  limitFields,
  memoryPolicy,
  memSlots,
  socketGroup,
  socketPath,
  sourceText,
  weight,
  octalMode,
} from '../config/fields.js';

const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const seconds = v.pipe(v.number(), v.minValue(0));

function described<T extends v.GenericSchema>(
  schema: T,
  text: string,
): v.SchemaWithPipe<readonly [T, v.DescriptionAction<v.InferOutput<T>, string>]> {
  return v.pipe(schema, v.description(text));
}

const Sources = described(
  v.pipe(v.array(sourceText, 'expected a list of sources'), v.minLength(1, 'expected at least one source')),
  'sources, best first',
);

export const HealthShape = v.strictObject({
  status: described(
    v.picklist(['ok', 'degraded', 'failing']),
    'ok; degraded: guests are served, and something needs a look; failing: guests wait',
  ),
  reasons: described(v.array(v.string()), 'why it is not ok, each a sentence for an operator'),
});
export type Health = v.InferOutput<typeof HealthShape>;

export const ReadyShape = v.strictObject({
  ready: described(v.boolean(), 'true once every listening socket accepts'),
});

export const LimitShape = v.strictObject(limitFields);

const Limit = described(v.nullable(LimitShape), 'the rate limit; null: none');

export const DeviceShape = v.strictObject({
  name: deviceName,
  socket: described(v.nullable(v.string()), 'path of the socket; null: an inherited one'),
  state: described(
    v.picklist(['listening', 'connected', 'paused']),
    'paused: requests are held because an operator wants it, whether or not a front-end is connected',
  ),
  limit: Limit,
  weight,
  sources: described(v.array(sourceText), 'in order of preference'),
  ownSources: described(v.boolean(), "false: they are the daemon's, also when those change"),
  mix: described(v.boolean(), "the kernel's bytes are mixed into theirs"),
  maxConnections: described(count, 'front-ends that the socket serves at a time'),
  frontEnds: described(
    v.array(
      v.strictObject({
        pid: described(count, 'process that connected; 0: in a pid namespace that the daemon does not see'),
        uid: v.pipe(v.number(), v.integer()),
        virtioFeatures: described(v.array(v.string()), 'as the guest negotiated them'),
        protocolFeatures: described(v.array(v.string()), 'as the VMM negotiated them'),
        memory: v.strictObject({
          regions: count,
          bytes: count,
          sealed: described(
            v.boolean(),
            'true when no region can be shrunk by the VMM, so none needs a guard',
          ),
        }),
        ring: v.strictObject({
          state: described(
            v.picklist(['stopped', 'running', 'held', 'faulted']),
            'held: a request waits; faulted: stopped for what the guest or the VMM did',
          ),
          size: count,
          heldFor: described(
            v.nullable(v.picklist(['limit', 'budget', 'entropy', 'pause'])),
            'why requests wait',
          ),
        }),
      }),
    ),
    'the front-ends that are connected, each with a ring of its own',
  ),
  requests: described(count, 'requests completed with at least one byte'),
  bytes: described(count, 'bytes of entropy delivered'),
  malformedChains: described(count, 'requests that broke a rule and were completed with 0 bytes'),
  ringFaults: count,
  connectionFaults: described(count, 'connections closed for what the VMM sent'),
  connections: described(count, 'front-ends that have connected so far'),
  refusedConnections: described(count, 'further front-ends that were closed at once'),
  throttledSeconds: described(seconds, 'time for which requests were held for a limit'),
  starvedSeconds: described(seconds, 'time for which requests were held for want of entropy'),
  latency: described(
    v.strictObject({ p50Seconds: v.nullable(seconds), p99Seconds: v.nullable(seconds) }),
    'from wake-up to the signal to the guest, sampled; null before the first sample',
  ),
  lastError: described(
    v.nullable(v.strictObject({ code: v.string(), message: v.string(), time: v.string() })),
    'the latest warning or error of this device',
  ),
});
export type DeviceStatus = v.InferOutput<typeof DeviceShape>;

export const SourceShape = v.strictObject({
  spec: v.string(),
  state: v.picklist(['starting', 'healthy', 'slow', 'failed']),
  reason: described(v.nullable(v.string()), 'why it is not healthy'),
  permanent: described(v.boolean(), 'failed for good: until an operator enables it again'),
  minEntropy: described(v.number(), 'bits that each of its bytes is credited with'),
  bytes: described(count, 'bytes that have passed its tests'),
  failures: described(count, 'how often it has failed'),
  reopens: described(count, 'how often it was opened, or connected to, again'),
  alarms: described(
    v.strictObject({ repetition: count, adaptive: count, permanent: count }),
    'windows that a health test has found fault with',
  ),
  repeatedBlocks: count,
  fips: v.strictObject({ blocks: count, failures: count }),
});
export type SourceStatus = v.InferOutput<typeof SourceShape>;

export const StatusShape = v.strictObject({
  version: v.string(),
  pid: count,
  uptimeSeconds: seconds,
  health: HealthShape,
  droppedLogLines: count,
  devices: v.array(DeviceShape),
  sources: described(v.array(SourceShape), 'in order of preference'),
});
export type Status = v.InferOutput<typeof StatusShape>;

export const EnabledShape = v.strictObject({
  enabled: described(v.array(v.string()), 'sources that had failed and are tried again'),
});
export type Enabled = v.InferOutput<typeof EnabledShape>;

/** POST /v1/sources. */
export const NewSourceShape = v.strictObject({
  source: sourceText,
  position: v.optional(
    described(count, 'its place in the order of preference, 0 for the first; without it the last'),
  ),
});
export type NewSource = v.InferOutput<typeof NewSourceShape>;

/** PUT /v1/sources. */
export const SourceOrderShape = v.strictObject({ sources: Sources });

/** POST /v1/sources/enable. */
export const EnableShape = v.optional(
  v.strictObject({ source: v.optional(described(sourceText, 'only this one')) }),
);

export const DevicesShape = v.strictObject({ devices: v.array(DeviceShape) });
export const SourcesShape = v.strictObject({ sources: v.array(SourceShape) });

/** POST /v1/devices. */
export const NewDeviceShape = v.strictObject({
  name: deviceName,
  socket: socketPath,
  limit: v.optional(Limit),
  weight: v.optional(weight),
  sources: v.optional(Sources),
  mix: v.optional(v.boolean('expected true or false')),
  socketMode: v.optional(octalMode),
  socketGroup: v.optional(socketGroup),
  memory: v.optional(memoryPolicy),
  memSlots: v.optional(memSlots),
  connections: v.optional(connections),
});
export type NewDevice = v.InferOutput<typeof NewDeviceShape>;

/** PATCH /v1/devices/NAME. */
export const DevicePatchShape = v.strictObject({
  limit: v.optional(Limit),
  weight: v.optional(weight),
  sources: v.optional(described(v.nullable(Sources), "null: the daemon's, also when those change")),
  mix: v.optional(v.boolean('expected true or false')),
  paused: v.optional(described(v.boolean(), 'hold all requests; the connection stays')),
});
export type DevicePatch = v.InferOutput<typeof DevicePatchShape>;

export const HandoverShape = v.strictObject({
  socket: described(v.string(), 'a datagram socket, to which everything goes as to sd_notify'),
});

/** It is done, and there is nothing to say. */
export const DoneShape = v.strictObject({});

/** What a refused request is answered. */
export const ErrorShape = v.strictObject({
  error: v.strictObject({
    code: described(v.string(), 'stable; listed in ARCHITECTURE.md'),
    message: v.string(),
    field: v.optional(described(v.string(), 'the field of the request that is wrong')),
  }),
});

export const ReloadShape = v.strictObject({
  changed: described(v.array(v.string()), 'what is in force now'),
  needsRestart: described(v.array(v.string()), 'what the file says and a restart brings'),
});
export type Reload = v.InferOutput<typeof ReloadShape>;
