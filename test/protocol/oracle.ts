// A second, naive codec of front-end payloads, written from the specification's tables and sharing nothing with
// protocol/: plain DataView, one format string a request. What both say alike is believed.
// Spec: vhost-user, "Payload" and "Front-end message types".

import { endianness } from 'node:os';

const LITTLE = endianness() === 'LE';

/** Fields as `name:bytes` in wire order; `_` is padding that is passed over, `0` padding that must be zero. */
const LAYOUTS: Readonly<Record<number, string>> = {
  1: '',
  2: 'features:8',
  3: '',
  4: '',
  7: '',
  8: 'index:4 num:4',
  9: 'index:4 flags:4 descUserAddr:8 usedUserAddr:8 availUserAddr:8 logGuestAddr:8',
  10: 'index:4 num:4',
  11: 'index:4 num:4',
  15: '',
  16: 'features:8',
  17: '',
  18: 'index:4 num:4',
  19: 'mac:8',
  20: 'mtu:8',
  21: '',
  22: 'iova:8 size:8 userAddr:8 permissions:1 type:1 _:6',
  23: 'index:4 num:4',
  27: 'sessionId:8',
  28: '',
  29: '',
  30: '',
  33: '',
  34: '',
  35: 'index:4 num:4',
  36: '',
  39: 'status:8',
  40: '',
  42: 'direction:4 phase:4',
  43: '',
  44: '',
};
const REGION = 'guestPhysAddr:8 size:8 userAddr:8 mmapOffset:8';
const INFLIGHT = 'mmapSize:8 mmapOffset:8 numQueues:2 queueSize:2';

export type Fields = Record<string, unknown>;
export type Verdict =
  | { readonly fields: Fields; readonly ignoredFrom: number }
  | { readonly scope: string; readonly code: string };

/** What a payload says, by the naive codec; bytes from `ignoredFrom` on have no meaning. */
export function oracleDecode(request: number, bytes: Uint8Array): Verdict {
  const size = bytes.length;
  const whole = (fields: Fields, ignoredFrom = size): Verdict => ({ fields, ignoredFrom });
  switch (request) {
    case 5:
      return memTable(bytes);
    case 6:
      if (size === 16) return whole({ log: { kind: 'area', ...read(bytes, 'mmapSize:8 mmapOffset:8') } });
      return size === 8 ? whole({ log: { kind: 'address', ...read(bytes, 'address:8') } }) : WRONG_SIZE;
    case 12:
    case 13:
    case 14:
      return size === 8 ? vringFd(bytes) : WRONG_SIZE;
    case 24:
    case 25: {
      if (size < 12) return WRONG_SIZE;
      const header = read(bytes, 'offset:4 size:4 flags:4');
      if (header['size'] !== size - 12) return { scope: 'request', code: 'config_size' };
      return whole({ ...header, bytes: bytes.slice(12) });
    }
    case 26:
      return whole({ session: bytes.slice() });
    case 31:
    case 32:
      if (size === 20) return whole({ ...read(bytes, INFLIGHT), paddingBytes: 0 });
      return size === 24 ? whole({ ...read(bytes, INFLIGHT), paddingBytes: 4 }, 20) : WRONG_SIZE;
    case 37:
    case 38:
      if (size !== 40) return WRONG_SIZE;
      if (bytes.subarray(0, 8).some((byte) => byte !== 0)) return BAD_PADDING;
      return whole({ region: read(bytes.subarray(8), REGION) });
    case 41:
      return size === 16 ? whole({ uuid: bytes.slice() }) : WRONG_SIZE;
    default: {
      const layout = LAYOUTS[request];
      if (layout === undefined) return { scope: 'connection', code: 'unknown_request' };
      if (size !== sizeOf(layout)) return WRONG_SIZE;
      return whole(read(bytes, layout), request === 22 ? 26 : size);
    }
  }
}

/** The payload of a message, by the naive codec. */
export function oracleEncode(request: number, fields: Fields): Uint8Array {
  switch (request) {
    case 5: {
      const regions = list(fields['regions']);
      const head = write('n:4 zero:4', { n: regions.length, zero: 0 });
      return concat([head, ...regions.map((region) => write(REGION, region))]);
    }
    case 6: {
      const [log = {}] = list([fields['log']]);
      return log['kind'] === 'area' ? write('mmapSize:8 mmapOffset:8', log) : write('address:8', log);
    }
    case 12:
    case 13:
    case 14:
      return write('index:1 noFd:1 _:6', { ...fields, noFd: fields['noFd'] === true ? 1 : 0 }, true);
    case 24:
    case 25:
      return concat([write('offset:4 size:4 flags:4', fields), byteArray(fields['bytes'])]);
    case 26:
      return byteArray(fields['session']);
    case 31:
    case 32:
      return write(`${INFLIGHT}${fields['paddingBytes'] === 4 ? ' _:4' : ''}`, fields);
    case 37:
    case 38:
      return concat([new Uint8Array(8), ...list([fields['region']]).map((region) => write(REGION, region))]);
    case 41:
      return byteArray(fields['uuid']);
    default:
      return write(LAYOUTS[request] ?? '', fields);
  }
}

const WRONG_SIZE = { scope: 'connection', code: 'payload_size' };
const BAD_PADDING = { scope: 'request', code: 'padding_not_zero' };

function memTable(bytes: Uint8Array): Verdict {
  if (bytes.length < 8) return WRONG_SIZE;
  const { n, padding } = read(bytes, 'n:4 padding:4');
  if (typeof n !== 'number' || n < 1 || n > 8) return { scope: 'request', code: 'mem_region_count' };
  if (padding !== 0) return BAD_PADDING;
  const end = 8 + 32 * n;
  if (bytes.length < end) return WRONG_SIZE;
  const regions = [];
  for (let at = 8; at < end; at += 32) regions.push(read(bytes.subarray(at, at + 32), REGION));
  return { fields: { regions }, ignoredFrom: end };
}

function vringFd(bytes: Uint8Array): Verdict {
  const inWireOrder = LITTLE ? Array.from(bytes) : Array.from(bytes).reverse();
  const [index, flags = 0, ...reserved] = inWireOrder;
  if (flags > 1 || reserved.some((byte) => byte !== 0)) {
    return { scope: 'request', code: 'vring_fd_reserved_bits' };
  }
  return { fields: { index, noFd: flags === 1 }, ignoredFrom: 8 };
}

function parse(layout: string): { readonly name: string; readonly size: number }[] {
  return layout
    .split(' ')
    .filter((field) => field !== '')
    .map((field) => ({
      name: field.slice(0, field.indexOf(':')),
      size: Number(field.slice(field.indexOf(':') + 1)),
    }));
}

function sizeOf(layout: string): number {
  return parse(layout).reduce((sum, { size }) => sum + size, 0);
}

function read(bytes: Uint8Array, layout: string): Fields {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const fields: Fields = {};
  let at = 0;
  for (const { name, size } of parse(layout)) {
    if (name !== '_') {
      if (size === 8) fields[name] = view.getBigUint64(at, LITTLE);
      else if (size === 4) fields[name] = view.getUint32(at, LITTLE);
      else if (size === 2) fields[name] = view.getUint16(at, LITTLE);
      else fields[name] = view.getUint8(at);
    }
    at += size;
  }
  return fields;
}

/** With `oneWord` the bytes are those of one little-endian integer, turned round on a big-endian machine. */
function write(layout: string, fields: Fields, oneWord = false): Uint8Array {
  const bytes = new Uint8Array(sizeOf(layout));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const { name, size } of parse(layout)) {
    const value = fields[name];
    if (typeof value === 'bigint') view.setBigUint64(at, value, LITTLE);
    else if (typeof value === 'number' && size === 4) view.setUint32(at, value, LITTLE);
    else if (typeof value === 'number' && size === 2) view.setUint16(at, value, LITTLE);
    else if (typeof value === 'number') view.setUint8(at, value);
    else if (name !== '_') throw new Error(`the oracle wants a number for ${name}`);
    at += size;
  }
  return oneWord && !LITTLE ? bytes.reverse() : bytes;
}

function byteArray(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value;
  throw new Error('the oracle wants a byte array');
}

function list(value: unknown): Fields[] {
  if (!Array.isArray(value)) throw new Error('the oracle wants a list');
  return value.map((item: unknown) => {
    if (typeof item !== 'object' || item === null) throw new Error('the oracle wants an object');
    return { ...item };
  });
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => Array.from(part)));
}
