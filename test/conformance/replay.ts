// Plays a front-end's sequence from the notation of vhost-user.md §3: request number, `!` NEED_REPLY, `/` payload bytes,
// `+` fds, `(n)` the number of a vring state. What the numbers say is filled in from the guest and `Values`.
import { U64_BYTES, Writer } from '../../protocol/cursor.js';
import { encodeFrontendMessage, type FrontendMessage } from '../../protocol/message.js';
import { FRONTEND_REQUEST_SPECS, FrontendRequest, isFrontendRequest } from '../../protocol/request.js';
import type { Fd } from '../../shared-memory/fd.js';
import type { Frontend } from '../support/frontend.js';
import type { SyntheticGuest } from './synthetic-guest.js';

/** What a front-end says in its sequence. */
export interface Values {
  readonly features: bigint;
  readonly protocolFeatures: bigint;
  readonly kick: Fd;
  readonly call: Fd;
  readonly base: number;
  /** The fd of SET_BACKEND_REQ_FD. */
  readonly backendReq?: Fd;
}

/** One message that arrived or did not arrive as the front-end needs it. */
interface Token {
  readonly text: string;
  readonly request: FrontendRequest;
  readonly needReply: boolean;
  readonly payloadBytes: number;
  readonly fds: number;
  readonly state: number | undefined;
}

const R = FrontendRequest;

function parse(text: string): Token {
  const match = /^(\d+)(!?)\/(\d+)(?:\+(\d+))?(?:\((\d)\))?$/.exec(text);
  const [, number, needReply, payloadBytes, fds = '0', state] = match ?? [];
  const request = Number(number);
  if (!isFrontendRequest(request)) throw new Error(`the test has a token that is none: ${text}`);
  return {
    text,
    request,
    needReply: needReply === '!',
    payloadBytes: Number(payloadBytes),
    fds: Number(fds),
    state: state === undefined ? undefined : Number(state),
  };
}

/** The payload in the size that the front-end really sends, which may be more than its fields need. */
function payloadOf(token: Token, guest: SyntheticGuest, values: Values): Uint8Array {
  const payload = new Uint8Array(token.payloadBytes);
  payload.set(fieldsOf(token, guest, values));
  return payload;
}

function fieldsOf({ request, state }: Token, guest: SyntheticGuest, values: Values): Uint8Array {
  const encode = (message: FrontendMessage): Uint8Array => encodeFrontendMessage(message);
  const { regions } = guest.ram;
  const [region] = regions;
  switch (request) {
    case R.SetFeatures:
      return encode({ request, features: values.features });
    case R.SetProtocolFeatures:
      return encode({ request, features: values.protocolFeatures });
    case R.SetMemTable:
      return encode({ request, regions });
    case R.AddMemReg:
      return region === undefined ? new Uint8Array(0) : encode({ request, region });
    case R.SetVringNum:
      return encode({ request, index: 0, num: guest.ring.size });
    case R.SetVringBase:
      return encode({ request, index: 0, num: values.base });
    case R.SetVringAddr:
      return encode(guest.vringAddr({ logGuestAddr: (1n << 64n) - 1n }));
    case R.SetVringEnable:
      return encode({ request, index: 0, num: state ?? 0 });
    case R.SetStatus:
      return new Writer(U64_BYTES).u64(0x0bn).finish();
    default:
      return new Uint8Array(0);
  }
}

function fdsOf(
  { request, fds }: Token,
  frontend: Frontend,
  guest: SyntheticGuest,
  values: Values,
): readonly Fd[] {
  if (fds === 0) return [];
  const { backendReq = values.call } = values;
  if (request === R.SetMemTable || request === R.AddMemReg) return guest.ram.fds;
  if (request === R.SetBackendReqFd) return [backendReq];
  return [request === R.SetVringKick ? values.kick : request === R.SetVringErr ? frontend.err : values.call];
}

/** Plays `sequence`; undefined when each message was answered as it should be, otherwise the first that was not. */
export function replay(
  frontend: Frontend,
  guest: SyntheticGuest,
  sequence: string,
  values: Values,
): string | undefined {
  for (const token of sequence.split(' ').map(parse)) {
    const fds = fdsOf(token, frontend, guest, values);
    const { request, needReply } = token;
    frontend.sendRequest(request, payloadOf(token, guest, values), { fds, needReply });
    if (FRONTEND_REQUEST_SPECS[request].ownReply) {
      const reply = frontend.receive();
      if (reply?.request !== request) return `${token.text}: ${reply?.request ?? 'closed'}`;
    } else if (needReply && frontend.receiveAck() !== true) {
      return `${token.text}: refused`;
    }
  }
  return frontend.answers() ? undefined : 'closed in the end';
}
