// vhost-user, "Message Specification", "Header" and "Front-end message types": bad-input.md, "vhost-user message
// framing", rows 1 to 29, against the real daemon. The header's timeout runs while the other rows do.
//
// Left out: timers are not seen from outside (the timeout's own row shows that it fires); 100,000 messages of row 28
// are 20,000, since the bound is reached after 14,000.
import t from 'tap';
import { U64_BYTES, Writer } from '../../protocol/cursor.js';
import { maskOf, ProtocolFeature, VirtioFeature } from '../../protocol/features.js';
import { FLAG_REPLY, FLAG_VERSION, HEADER_BYTES, MAX_PAYLOAD_BYTES } from '../../protocol/header.js';
import { PAYLOAD_BYTES } from '../../protocol/payload.js';
import { encodeRequest } from '../../protocol/reply.js';
import { FRONTEND_REQUEST_SPECS, FrontendRequest, frontendRequestName } from '../../protocol/request.js';
import { openEventfd, readEventfd } from '../../shared-memory/eventfd.js';
import { closeFd } from '../../shared-memory/fd.js';
import { DEFAULT_FEATURES, type Frontend } from '../support/frontend.js';
import { checkRefusal, type Refusal, sendWire, Stage, wire } from './refusals.js';
import { Stand } from './stand.js';
import { SyntheticGuest } from './synthetic-guest.js';

const NO_PAYLOAD = new Uint8Array(0);
const GET_FEATURES = encodeRequest(FrontendRequest.GetFeatures, NO_PAYLOAD, { needReply: false });

function header(request: number, flags: number, size: number): Uint8Array {
  return new Writer(HEADER_BYTES).u32(request).u32(flags).u32(size).finish();
}

interface ClosingCase {
  readonly title: string;
  readonly bytes: Uint8Array;
  readonly codes: readonly string[];
  /** The front-end hangs up behind the bytes, instead of being closed. */
  readonly hangsUp?: boolean;
}

const V1 = FLAG_VERSION;
const CLOSING: readonly ClosingCase[] = [
  { title: '1: nothing, then the end', bytes: NO_PAYLOAD, codes: [], hangsUp: true },
  {
    title: '5: half a header, then the end',
    bytes: GET_FEATURES.subarray(0, 6),
    codes: ['message_cut'],
    hangsUp: true,
  },
  {
    title: '5: a payload shorter than its size, then the end',
    bytes: encodeRequest(FrontendRequest.SetFeatures, new Uint8Array(8), { needReply: true }).subarray(0, 19),
    codes: ['message_cut'],
    hangsUp: true,
  },
  { title: '8: size 0xFFFFFFFF', bytes: header(5, V1, 0xffff_ffff), codes: ['payload_too_large'] },
  { title: '9: size 4097', bytes: header(5, V1, MAX_PAYLOAD_BYTES + 1), codes: ['payload_too_large'] },
  { title: '11: reserved flag bit 4', bytes: header(1, V1 | 0x10, 0), codes: ['header_flags'] },
  { title: '11: reserved flag bit 31', bytes: header(1, V1 + 0x8000_0000, 0), codes: ['header_flags'] },
  { title: '11: version 0', bytes: header(1, 0, 0), codes: ['header_version'] },
  { title: '11: version 2', bytes: header(1, 2, 0), codes: ['header_version'] },
  { title: '12: reply flag on a request', bytes: header(1, V1 | FLAG_REPLY, 0), codes: ['reply_flag'] },
  { title: '13: request 0', bytes: header(0, V1, 0), codes: ['unknown_request'] },
  { title: '13: request 45', bytes: header(45, V1, 0), codes: ['unknown_request'] },
  { title: '13: request 0xFFFFFFFF', bytes: header(0xffff_ffff, V1, 0), codes: ['unknown_request'] },
  {
    title: '17: GET_FEATURES with a payload',
    bytes: encodeRequest(FrontendRequest.GetFeatures, new Uint8Array(8), { needReply: true }),
    codes: ['payload_size'],
  },
  {
    title: '20: INBAND_NOTIFICATIONS without BACKEND_REQ and REPLY_ACK, even with NEED_REPLY',
    bytes: encodeRequest(
      FrontendRequest.SetProtocolFeatures,
      new Writer(U64_BYTES).u64(maskOf(ProtocolFeature.INBAND_NOTIFICATIONS)).finish(),
      { needReply: true },
    ),
    codes: ['inband_notifications'],
  },
];

const vring = { index: 0, num: 1 } as const;
const inflight = { mmapSize: 4096n, mmapOffset: 0n, numQueues: 1, queueSize: 8, paddingBytes: 4 } as const;
const region = { guestPhysAddr: 0n, size: 4096n, userAddr: 0n, mmapOffset: 0n };

/** Row 15: known requests of features that were not negotiated, and of other device types. */
const NOT_NEGOTIATED: readonly Refusal[] = [
  ...[
    wire({ request: FrontendRequest.GetConfig, offset: 0, size: 4, flags: 0, bytes: new Uint8Array(4) }),
    wire({ request: FrontendRequest.AddMemReg, region }),
    wire({ request: FrontendRequest.RemMemReg, region }),
    wire({ request: FrontendRequest.GetMaxMemSlots }),
    wire({ request: FrontendRequest.GetInflightFd, ...inflight }),
    wire({ request: FrontendRequest.SetInflightFd, ...inflight }),
    wire({ request: FrontendRequest.PostcopyAdvise }),
    wire({ request: FrontendRequest.SetLogBase, log: { kind: 'area', mmapSize: 4096n, mmapOffset: 0n } }),
    wire({ request: FrontendRequest.VringKick, ...vring }),
    wire({ request: FrontendRequest.SetVringEndian, ...vring }),
    wire({ request: FrontendRequest.CheckDeviceState }),
    wire({ request: FrontendRequest.GetShmemConfig }),
    wire({ request: FrontendRequest.SendRarp, mac: 0n }),
  ].map((message) => refusal(`15: ${frontendRequestName(message.request)}`, 'not_negotiated', message)),
  ...[
    wire({ request: FrontendRequest.SetVringEnable, ...vring }),
    wire({ request: FrontendRequest.GetQueueNum }),
    wire({ request: FrontendRequest.SetBackendReqFd }),
    wire({ request: FrontendRequest.ResetDevice }),
  ].map((message) => ({
    ...refusal(`15: ${frontendRequestName(message.request)} before negotiation`, 'not_negotiated', message),
    stage: Stage.Fresh,
  })),
  refusal(
    '27: SET_CONFIG',
    'not_negotiated',
    wire({ request: FrontendRequest.SetConfig, offset: 0, size: 4, flags: 0, bytes: new Uint8Array(4) }),
  ),
  ...(['XEN_MMAP', 'CONFIGURE_MEM_SLOTS', 'CONFIG', 'INFLIGHT_SHMFD'] as const).map((name) =>
    refusal(
      `19: SET_PROTOCOL_FEATURES with ${name}, which was not offered`,
      'protocol_features_not_offered',
      wire({ request: FrontendRequest.SetProtocolFeatures, features: maskOf(ProtocolFeature[name]) }),
    ),
  ),
  refusal(
    '19: SET_PROTOCOL_FEATURES with bit 63',
    'protocol_features_not_offered',
    wire({ request: FrontendRequest.SetProtocolFeatures, features: 1n << 63n }),
  ),
  refusal(
    '81c: GET_VRING_BASE_INFLIGHT without INFLIGHT_SHMFD',
    'protocol_features_not_offered',
    wire({
      request: FrontendRequest.SetProtocolFeatures,
      features: maskOf(ProtocolFeature.GET_VRING_BASE_INFLIGHT),
    }),
  ),
  refusal(
    '19: SET_FEATURES with RING_PACKED, which was not offered',
    'features_not_offered',
    wire({
      request: FrontendRequest.SetFeatures,
      features: DEFAULT_FEATURES | maskOf(VirtioFeature.RING_PACKED),
    }),
  ),
  refusal('21: SET_OWNER twice', 'owner_twice', wire({ request: FrontendRequest.SetOwner })),
];

function refusal(title: string, code: string, message: ReturnType<typeof wire>): Refusal {
  return { title, code, message: () => message };
}

const stand = await Stand.start({ devices: CLOSING.length + NOT_NEGOTIATED.length + 16 });
t.teardown(() => stand.stop());

/** Row 4 begins here, on a daemon of its own, and is looked at in the end. */
const quietStand = await Stand.start({ devices: 1 });
t.teardown(() => quietStand.stop());
const silentDevice = quietStand.nextDevice();
const silent = silentDevice.connect();
silent.sendBytes(header(FrontendRequest.SetFeatures, V1, 8));

for (const { title, bytes, codes, hangsUp = false } of CLOSING) {
  t.test(`row ${title}: the connection ends`, async (t) => {
    const logged = await stand.checked(t, async (device) => {
      const before = stand.footprint();
      const frontend = device.connect();
      if (bytes.length > 0) t.ok(frontend.answers(), 'connected');
      frontend.sendBytes(bytes);
      if (hangsUp) {
        frontend.close();
        await stand.settled(before);
      } else {
        t.ok(frontend.isClosed(), 'closed');
      }
      const next = device.connect();
      t.ok(next.answers(), 'the device serves the next front-end');
    });
    t.strictSame(logged, codes);
  });
}

for (const refused of NOT_NEGOTIATED)
  t.test(`row ${refused.title}: NACK`, (t) => checkRefusal(t, stand, refused));

t.test('row 3: a message byte by byte, 100 ms apart, is served', async (t) => {
  await stand.checked(t, async (device) => {
    const frontend = device.connect();
    const message = encodeRequest(FrontendRequest.SetFeatures, new Uint8Array(8), { needReply: true });
    for (const byte of message) {
      frontend.sendBytes(Uint8Array.of(byte));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    t.equal(frontend.receiveAck(), true);
  });
});

t.test('row 7: two messages in one segment are served in order, fds kept with the right one', async (t) => {
  const guest = new SyntheticGuest();
  await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.setUp(guest.ram, guest.ring);
    const call = openEventfd();
    const setCall = encodeRequest(FrontendRequest.SetVringCall, new Uint8Array(8), { needReply: true });
    frontend.sendBytes(Buffer.concat([setCall, GET_FEATURES]), [call]);
    t.equal(frontend.receiveAck(), true, 'SET_VRING_CALL');
    t.equal(frontend.receive()?.request, FrontendRequest.GetFeatures);
    t.ok(readEventfd(call) > 0, 'the fd is the one that came with it');

    // Two segments before the daemon reads; then one whose fd comes with the payload.
    const err = openEventfd();
    const setErr = encodeRequest(FrontendRequest.SetVringErr, new Uint8Array(8), { needReply: true });
    frontend.sendBytes(setErr, [err]);
    frontend.sendBytes(setCall, [call]);
    frontend.sendBytes(setCall.subarray(0, HEADER_BYTES));
    frontend.sendBytes(setCall.subarray(HEADER_BYTES), [frontend.call]);
    for (let i = 0; i < 3; i++) t.equal(frontend.receiveAck(), true);
    t.equal(readEventfd(call), 1, 'the second segment brought call');
    t.ok(frontend.waitCall() > 0, 'the payload brought the last call');
    t.ok(readEventfd(err) < 0, 'err was not signalled');
    t.equal(guest.serveOnce(frontend), undefined);
    closeFd(call);
    closeFd(err);
  });
  guest.close();
});

t.test('row 9: a payload of exactly 4096 bytes is parsed', async (t) => {
  const guest = new SyntheticGuest();
  await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.negotiate();
    const payload = new Uint8Array(MAX_PAYLOAD_BYTES);
    payload.set(wire({ request: FrontendRequest.SetMemTable, regions: guest.ram.regions }).payload);
    frontend.sendRequest(FrontendRequest.SetMemTable, payload, { fds: guest.ram.fds, needReply: true });
    t.equal(frontend.receiveAck(), true);
    frontend.startRing(guest.ram, guest.ring, 0);
    t.equal(guest.serveOnce(frontend), undefined);
  });
  guest.close();
});

t.test(
  'row 16: every fixed-size message one byte short and one byte long: the connection ends',
  async (t) => {
    const codes = await stand.checked(t, (device) => {
      for (const [number, { payload }] of Object.entries(FRONTEND_REQUEST_SPECS)) {
        const sizes: readonly number[] | 'variable' = PAYLOAD_BYTES[payload];
        if (sizes === 'variable') continue;
        const wrong = new Set(sizes.flatMap((size) => [size - 1, size + 1]).filter((size) => size >= 0));
        for (const size of wrong) {
          const frontend = device.connect();
          frontend.sendRequest(Number(number), new Uint8Array(size), { needReply: true });
          t.ok(frontend.isClosed(), `${frontendRequestName(Number(number))} of ${size} bytes`);
          frontend.close();
        }
      }
    });
    t.strictSame([...new Set(codes)], ['payload_size']);
    t.ok(codes.length <= 20, 'many connections of one device log 20 lines of a kind in 10 s');
  },
);

t.test('row 16: SET_MEM_TABLE one byte shorter than its regions: the connection ends', async (t) => {
  const guest = new SyntheticGuest();
  const codes = await stand.checked(t, (device) => {
    const frontend = device.connect();
    const table = wire({ request: FrontendRequest.SetMemTable, regions: guest.ram.regions }).payload;
    frontend.sendRequest(FrontendRequest.SetMemTable, table.subarray(0, -1), { fds: guest.ram.fds });
    t.ok(frontend.isClosed());
  });
  t.strictSame(codes, ['payload_size']);
  guest.close();
});

t.test('row 17b: SET_FEATURES without PROTOCOL_FEATURES enables the ring at once', async (t) => {
  const guest = new SyntheticGuest();
  await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.negotiate(maskOf(VirtioFeature.VERSION_1));
    frontend.setMemTable(guest.ram);
    frontend.expectOk({ request: FrontendRequest.SetVringNum, index: 0, num: guest.ring.size });
    frontend.setVringAddr(guest.ram, guest.ring);
    frontend.expectOk({ request: FrontendRequest.SetVringCall, index: 0, noFd: false }, [frontend.call]);
    frontend.expectOk({ request: FrontendRequest.SetVringKick, index: 0, noFd: false }, [frontend.kick]);
    t.equal(guest.serveOnce(frontend), undefined);
    const enable = { request: FrontendRequest.SetVringEnable, index: 0, num: 0 } as const;
    t.equal(frontend.acknowledged(enable), false, 'SET_VRING_ENABLE needs PROTOCOL_FEATURES');
    t.equal(guest.serveOnce(frontend), undefined);
  });
  guest.close();
});

t.test('row 23: NEED_REPLY on a message that replies by itself gives exactly one reply', async (t) => {
  const guest = new SyntheticGuest();
  await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.setUp(guest.ram, guest.ring);
    const own = [
      FrontendRequest.GetFeatures,
      FrontendRequest.GetProtocolFeatures,
      FrontendRequest.GetQueueNum,
      FrontendRequest.GetStatus,
    ] as const;
    for (const request of own) {
      frontend.send({ request }, { needReply: true });
      t.equal(frontend.receive()?.request, request);
    }
    frontend.send({ request: FrontendRequest.GetVringBase, ...vring }, { needReply: true });
    t.equal(frontend.receive()?.request, FrontendRequest.GetVringBase);
    // A second reply to any of them would stand before this one.
    frontend.send({ request: FrontendRequest.SetStatus, status: 1n }, { needReply: true });
    t.equal(frontend.receive()?.request, FrontendRequest.SetStatus);
  });
  guest.close();
});

t.test('row 24: NEED_REPLY is answered although REPLY_ACK was not negotiated', async (t) => {
  await stand.checked(t, (device) => {
    const frontend = device.connect();
    t.equal(frontend.acknowledged({ request: FrontendRequest.SetFeatures, features: 0n }), true);
    t.equal(frontend.acknowledged({ request: FrontendRequest.SetVringNum, index: 7, num: 8 }), false);
  });
});

t.test(
  'row 25: SET_FEATURES with a running ring toggles EVENT_IDX: nothing is lost or done twice',
  async (t) => {
    const guest = new SyntheticGuest();
    await stand.checked(t, (device) => {
      const frontend = device.connect();
      frontend.setUp(guest.ram, guest.ring);
      for (let round = 0; round < 400; round++) {
        const eventIdx = round % 2 === 0;
        guest.ring.setUsedEvent(guest.ring.usedIndex);
        const features = DEFAULT_FEATURES | (eventIdx ? maskOf(VirtioFeature.EVENT_IDX) : 0n);
        frontend.expectOk({ request: FrontendRequest.SetFeatures, features });
        guest.ring.request(round % 8, guest.bufferAt, 64);
        if (guest.ring.wantsKick(eventIdx)) frontend.kickRing();
        let used = guest.ring.take();
        while (used === undefined && frontend.waitCall() > 0) used = guest.ring.take();
        if (used?.id !== round % 8 || used.length !== 64) t.fail(`round ${round}: ${JSON.stringify(used)}`);
      }
      t.equal(guest.ring.deviceUsedIndex, 400, 'each was completed once');
    });
    guest.close();
  },
);

const MANY = 20_000;
const readers: readonly { title: string; read: (frontend: Frontend) => void }[] = [
  { title: 'row 28: 20,000 GET_FEATURES without reading a reply', read: () => undefined },
  { title: 'row 29: replies read one byte at a time, slower than they come', read: (f) => void f.discard(1) },
];
for (const { title, read } of readers) {
  t.test(`${title}: bounded, then the connection ends`, async (t) => {
    const from = stand.daemon.log.length;
    const codes = await stand.checked(t, (device) => {
      const frontend = device.connect();
      const batch = Buffer.concat(Array.from({ length: 100 }, () => GET_FEATURES));
      let sent = 0;
      for (let i = 0; i < MANY / 100; i++) {
        sent += frontend.sendAll(batch);
        read(frontend);
        if (i % 50 === 0) t.equal(stand.serveBystander(), undefined, 'others are unaffected');
      }
      t.ok(sent < MANY * HEADER_BYTES, `closed after ${sent / HEADER_BYTES} messages`);
      t.ok(frontend.isClosed());
    });
    t.strictSame(codes, ['replies_not_read']);
    const waiting = Number(/got (\d+) bytes of them/.exec(stand.daemon.log.slice(from))?.[1]);
    t.ok(waiting > 256 * 1024 && waiting <= 256 * 1024 + 20, `${waiting} bytes were not read`);
  });
}

t.test('refused a hundred times on one connection: one log line', async (t) => {
  const codes = await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.negotiate();
    const twice = wire({ request: FrontendRequest.SetOwner });
    for (let i = 0; i < 100; i++) {
      sendWire(frontend, twice, true);
      t.equal(frontend.receiveAck(), false);
    }
  });
  t.strictSame(codes, ['owner_twice']);
});

t.test('row 4: a header, then silence: the connection ends after 10 s, and nobody else waits', async (t) => {
  t.equal(quietStand.serveBystander(), undefined);
  t.ok(silent.isClosed(15_000));
  await quietStand.daemon.waitForLog(new RegExp(`${silentDevice.name}: .*\\[disconnected\\]`), 5000);
  t.strictSame(quietStand.codes(silentDevice), ['listening', 'connected', 'message_timeout', 'disconnected']);
  const lines = quietStand.daemon.log.split('\n').filter((line) => line.includes(` ${silentDevice.name}: `));
  const [connectedMs = 0, closedMs = 0] = ['[connected]', '[message_timeout]'].map((code) =>
    Date.parse(lines.find((line) => line.endsWith(code))?.split(' ')[0] ?? ''),
  );
  const heldMs = closedMs - connectedMs;
  t.ok(heldMs > 9900 && heldMs < 12_000, `held for ${heldMs} ms`);
  silent.close();
});
