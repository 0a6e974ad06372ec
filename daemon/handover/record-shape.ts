// The shape of a front-end's record, for whoever reads one that another version of the daemon may have written.
import * as v from 'valibot';
import type { Fd } from '../../shared-memory/fd.js';
import type { FrontendRecord } from './frontend-record.js';
import { RECORD_VERSION } from './frontend-record.js';
import { RecordFile } from './record-file.js';

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
  message: v.strictObject({ bytes, fds: v.array(count), ahead: v.array(count), inSocket: count }),
  replies: v.strictObject({ file: count, end: count }),
});

/** The record in a file; undefined: another version's, or none. */
export function readRecord(fd: Fd): FrontendRecord | undefined {
  const opened = RecordFile.open(fd);
  if (opened === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(opened.text);
  } catch {
    return undefined;
  }
  const parsed = v.safeParse(RecordShape, value);
  if (!parsed.success) return undefined;
  const { output } = parsed;
  return opened.isAcknowledged ? { ...output, message: { ...output.message, inSocket: 0 } } : output;
}

/** Every open file that a record names. */
export function filesOf({ socket, state, message, replies }: FrontendRecord): number[] {
  const { regions, backendReq, vring } = state;
  const single = [backendReq, vring.kick, vring.call, vring.err].flatMap((number) => number ?? []);
  return [
    socket,
    replies.file,
    ...single,
    ...(regions ?? []).map(({ file }) => file),
    ...message.fds,
    ...message.ahead,
  ];
}
