// The shape of a front-end's record, for whoever reads one that another version of the daemon may have written.
import * as v from 'valibot';
import type { FrontendRecord } from './frontend-record.js';
import { RECORD_VERSION } from './frontend-record.js';

const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const kept = v.nullable(count);
const u64 = v.pipe(v.string(), v.regex(/^0x[0-9a-f]{1,16}$/));
const base64 = v.pipe(v.string(), v.base64());
const bytes = v.union([v.literal(''), base64]);

const VringShape = v.strictObject({
  size: v.pipe(count, v.maxValue(32_768)),
  base: v.pipe(count, v.maxValue(0xffff)),
  addresses: v.nullable(
    v.strictObject({ flags: count, descUserAddr: u64, usedUserAddr: u64, availUserAddr: u64 }),
  ),
  started: v.boolean(),
  enabled: v.boolean(),
  running: v.boolean(),
  faulted: v.boolean(),
  hasServed: v.boolean(),
  kick: kept,
  call: kept,
  err: kept,
});

const DeviceRecordShape = v.strictObject({
  features: u64,
  protocolFeatures: u64,
  owned: v.boolean(),
  status: u64,
  regions: v.nullable(
    v.array(v.strictObject({ guestPhysAddr: u64, size: u64, userAddr: u64, mmapOffset: u64, file: count })),
  ),
  backendReq: kept,
  vring: VringShape,
});

const RecordShape = v.strictObject({
  version: v.literal(RECORD_VERSION),
  device: v.string(),
  socket: count,
  state: DeviceRecordShape,
  message: v.strictObject({ bytes, fds: v.array(count) }),
  replies: v.array(base64),
});

/** The record in `text`; undefined: another version's, or none. */
export function parseRecord(text: string): FrontendRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const parsed = v.safeParse(RecordShape, value);
  return parsed.success ? parsed.output : undefined;
}

/** Every open file that a record names. */
export function filesOf({ socket, state, message }: FrontendRecord): number[] {
  const { regions, backendReq, vring } = state;
  const single = [backendReq, vring.kick, vring.call, vring.err].flatMap((number) => number ?? []);
  return [socket, ...single, ...(regions ?? []).map(({ file }) => file), ...message.fds];
}
