// Where an EGD server is: the part of a source spec behind `egd:`, as `unix:/run/egd.sock` or `tcp:[::1]:708`.
import { statSync } from 'node:fs';
import { isIPv4, isIPv6 } from 'node:net';
import { Fault } from '../../protocol/fault.js';

export type EgdAddress =
  | { readonly kind: 'unix'; readonly path: string }
  /** A name or an address; IPv6 without brackets here. */
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

/** sun_path has 108 bytes with the closing NUL; node cuts off what is longer. Source: unix(7). */
const MAX_SOCKET_PATH_BYTES = 107;
const MAX_HOST_CHARACTERS = 253;
const MAX_PORT = 65_535;
const TCP_FORM = /^(?:\[(?<ipv6>[^\]]*)\]|(?<name>[^:[\]]*)):(?<port>\d{1,5})$/;
const HOST_NAME = /^(?!-)[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?$/;
const DIGITS_AND_DOTS = /^[\d.]+$/;

/** Parses `unix:PATH` or `tcp:HOST:PORT`; otherwise gives what is wrong, as in "expected X". */
export function parseEgdAddress(text: string): EgdAddress | string {
  if (text.startsWith('unix:')) return parseUnix(text.slice('unix:'.length));
  if (text.startsWith('tcp:')) return parseTcp(text.slice('tcp:'.length));
  return 'egd:unix:PATH or egd:tcp:HOST:PORT';
}

function parseUnix(path: string): EgdAddress | string {
  if (!path.startsWith('/') || path.includes('\0')) return 'an absolute path behind egd:unix:';
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_SOCKET_PATH_BYTES)
    return `a socket path of at most ${MAX_SOCKET_PATH_BYTES} bytes (this one has ${bytes})`;
  return { kind: 'unix', path };
}

function parseTcp(text: string): EgdAddress | string {
  const parts = TCP_FORM.exec(text)?.groups;
  if (parts === undefined) return 'egd:tcp:HOST:PORT, an IPv6 address in brackets as [::1]';
  const { ipv6, name, port: portText } = parts;
  const port = Number(portText);
  if (!(port >= 1 && port <= MAX_PORT)) return `a port from 1 to ${MAX_PORT}`;
  if (ipv6 !== undefined)
    return isIPv6(ipv6) ? { kind: 'tcp', host: ipv6.toLowerCase(), port } : 'an IPv6 address in the brackets';
  const host = (name ?? '').toLowerCase();
  const isHost = DIGITS_AND_DOTS.test(host)
    ? isIPv4(host)
    : HOST_NAME.test(host) && host.length <= MAX_HOST_CHARACTERS;
  return isHost ? { kind: 'tcp', host, port } : 'a host name or an IP address behind egd:tcp:';
}

/** The address as it is written behind `egd:`. */
export function egdAddressText(address: EgdAddress): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  return `tcp:${isIPv6(address.host) ? `[${address.host}]` : address.host}:${address.port}`;
}

/**
 * Looks for what no retry can cure: a path with something else than a socket. One with nothing is fine, since the server
 * may be started later.
 */
export function checkEgdAddress(address: EgdAddress): Fault | undefined {
  if (address.kind !== 'unix') return undefined;
  const found = statSync(address.path, { throwIfNoEntry: false });
  if (found === undefined || found.isSocket()) return undefined;
  const kind = found.isDirectory() ? 'a directory' : found.isFile() ? 'a regular file' : 'a device or a FIFO';
  return new Fault(
    'daemon',
    'source_open',
    `expected the Unix socket of an EGD server at ${address.path}, got ${kind}: give the server's socket itself`,
  );
}
