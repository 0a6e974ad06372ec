// vhost-user, "Communication": what QEMU 7.2, QEMU 10 and Linux UML really send (vhost-user.md §3), as whole messages
// through header, request table and message. Leaves out the order's meaning and the values: those are the device's.

import t from 'tap';
import { Fault } from '../../protocol/fault.js';
import { decodeHeader, HEADER_BYTES } from '../../protocol/header.js';
import { decodeFrontendMessage, encodeFrontendMessage } from '../../protocol/message.js';
import { encodeRequest } from '../../protocol/reply.js';
import { frontendRequestSpec } from '../../protocol/request.js';
import { oracleEncode } from './oracle.js';

/** Request number, `!` NEED_REPLY, `/` payload bytes, `+` fds, `(n)` the number in a vring state. */
const SEQUENCES = {
  'QEMU 7.2 realized': '1/0 15/0 16/8 17/0 3/0 1/0 13/8+1 14/8+1',
  'QEMU 7.2 driver starts': '13/8+1 2/8 5!/40+1 8/8 10/8 9/40 12/8+1 18/8(1) 13/8+1',
  'QEMU 7.2 stop': '18/8(0) 11/8 13/8+1',
  'QEMU 10.0.2 driver starts': '2/8 5!/40+1 8/8 10/8 9/40 12/8+1 13/8+1 18!/8(1) 13/8+1',
  'QEMU 10.0.2 stop': '18!/8(0) 11/8',
  'QEMU with CONFIGURE_MEM_SLOTS and STATUS': '36/0 37/40+1 40/0 39/8',
  'UML start': '3/0 1/0 15/0 16!/8 21!/0+1 2!/8 5!/72+1 13!/8+1 8!/8 10!/8 9!/40 12!/8+1 18!/8(1)',
  'UML halt': '18!/8(0) 1/0',
};

const REGION = {
  guestPhysAddr: 0x10_0000n,
  size: 0x1000_0000n,
  userAddr: 0x10_0000n,
  mmapOffset: 0x10_0000n,
};
const ADDR = {
  descUserAddr: 0x1000n,
  usedUserAddr: 0x3000n,
  availUserAddr: 0x2000n,
  logGuestAddr: 2n ** 64n - 1n,
};
/** Something to say for each request that has a payload. */
const FIELDS: Readonly<Record<number, Readonly<Record<string, unknown>>>> = {
  2: { features: 0x1_7000_0000n },
  5: { regions: [REGION] },
  8: { index: 0, num: 4 },
  9: { index: 0, flags: 0, ...ADDR },
  10: { index: 0, num: 0 },
  11: { index: 0, num: 0 },
  12: { index: 0, noFd: false },
  13: { index: 0, noFd: false },
  14: { index: 0, noFd: false },
  16: { features: 9n },
  37: { region: REGION },
  39: { status: 8n },
};

interface Sent {
  readonly request: number;
  readonly needReply: boolean;
  readonly payloadBytes: number;
  readonly fds: number;
  readonly state: number | undefined;
}

function parse(token: string): Sent {
  const match = /^(\d+)(!?)\/(\d+)(?:\+(\d+))?(?:\((\d)\))?$/.exec(token);
  if (match === null) throw new Error(`the test has a token that is none: ${token}`);
  const [, request, needReply, payloadBytes, fds = '0', state] = match;
  return {
    request: Number(request),
    needReply: needReply === '!',
    payloadBytes: Number(payloadBytes),
    fds: Number(fds),
    state: state === undefined ? undefined : Number(state),
  };
}

for (const [title, sequence] of Object.entries(SEQUENCES)) {
  t.test(title, (t) => {
    for (const token of sequence.split(' ')) {
      const { request, needReply, payloadBytes, fds, state } = parse(token);
      const fields = state === undefined ? (FIELDS[request] ?? {}) : { index: 0, num: state };
      // UML's memory table is longer than its one region: the rest stays zero.
      const payload = new Uint8Array(payloadBytes);
      payload.set(oracleEncode(request, fields));

      const wire = encodeRequest(request, payload, { needReply });
      t.strictSame(decodeHeader(wire), { request, reply: false, needReply, payloadBytes }, token);
      const message = decodeFrontendMessage(request, wire.subarray(HEADER_BYTES));
      if (message instanceof Fault) {
        t.fail(`${token}: ${message.message}`);
        continue;
      }
      t.strictSame(message, { request, ...fields }, token);
      t.strictSame(encodeFrontendMessage(message), oracleEncode(request, fields), token);
      const maxFds = frontendRequestSpec(request)?.maxFds;
      t.ok(maxFds === 'per-region' ? fds === 1 : fds <= (maxFds ?? -1), `${token}: fds`);
    }
    t.end();
  });
}
