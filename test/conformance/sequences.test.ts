// vhost-user, "Starting and stopping rings" and "Reconnecting": what real front-ends send (vhost-user.md §2 and §3), message
// by message, against the real daemon; each ring is served in the end, and nothing is logged as wrong.
//
// Left out: real front-ends themselves (test/end-to-end has QEMU); migration and snapshots, which are not offered.
import t, { type Test } from 'tap';
import { maskOf, ProtocolFeature, VirtioFeature } from '../../protocol/features.js';
import { openEventfd } from '../../shared-memory/eventfd.js';
import { closeFd, type Fd } from '../../shared-memory/fd.js';
import { addToEventfd, openSocketPair, readSome } from '../support/fd-kinds.js';
import type { Frontend } from '../support/frontend.js';
import { replay, type Values } from './replay.js';
import { type Device, Stand } from './stand.js';
import { closeAll, SyntheticGuest, type GuestPlan } from './synthetic-guest.js';

/** Features 0x170000000: INDIRECT_DESC, EVENT_IDX, PROTOCOL_FEATURES, VERSION_1. */
const ALL_FEATURES = 0x1_7000_0000n;
const { MQ, REPLY_ACK, BACKEND_REQ, RESET_DEVICE, STATUS, CONFIGURE_MEM_SLOTS } = ProtocolFeature;

/** Where UML's memory lies: guest address, user address and file offset are the same, and not 0. */
const UML_GUEST: GuestPlan = {
  regions: [{ guestPhysAddr: 0x10_0000n, userAddr: 0x10_0000n, mmapOffset: 0x10_0000, bytes: 1 << 20 }],
  ringAt: 0x11_0000n,
  bufferAt: 0x14_0000n,
  ringSize: 256,
};
const QEMU_GUEST: GuestPlan = { ringSize: 4 };

const QEMU_7_START = '13/8+1 2/8 5!/40+1 8/8 10/8 9/40 12/8+1 18/8(1) 13/8+1';
const QEMU_7_STOP = '18/8(0) 11/8 13/8+1';
const QEMU_10_START = '2/8 5!/40+1 8/8 10/8 9/40 12/8+1 13/8+1 18!/8(1) 13/8+1';
const CH_SET_UP = '2!/8 5!/40+1 8!/8 9!/40 10!/8 13!/8+1 12!/8+1 18!/8(1)';

interface Life {
  readonly title: string;
  readonly protocolFeatures: bigint;
  readonly guest: GuestPlan;
  readonly realize: string;
  readonly start: string;
  readonly stop: string;
  /** How it starts again after a stop; absent: it does not. */
  readonly again?: string;
  readonly features?: bigint;
  /** The call fd: a socket, as UML passes it. */
  readonly callIsSocket?: boolean;
}

const LIVES: readonly Life[] = [
  {
    title: 'QEMU 7.2',
    protocolFeatures: maskOf(MQ, REPLY_ACK),
    guest: QEMU_GUEST,
    realize: '1/0 15/0 16/8 17/0 3/0 1/0 13/8+1 14/8+1',
    start: QEMU_7_START,
    stop: QEMU_7_STOP,
    again: QEMU_7_START,
  },
  {
    title: 'QEMU 7.2 that acks all that is offered',
    protocolFeatures: maskOf(MQ, REPLY_ACK, BACKEND_REQ, RESET_DEVICE, STATUS),
    guest: QEMU_GUEST,
    realize: '1/0 15/0 16/8 17/0 21/0+1 3/0 1/0 13/8+1 14/8+1',
    start: '13/8+1 2/8 40/0 39/8 5!/40+1 8/8 10/8 9/40 12/8+1 18/8(1) 13/8+1',
    stop: QEMU_7_STOP,
    again: '13/8+1 2/8 40/0 39/8 5!/40+1 8/8 10/8 9/40 12/8+1 18/8(1) 13/8+1',
  },
  {
    title: 'QEMU 7.2 whose guest negotiates NOTIFY_ON_EMPTY, which was not offered',
    protocolFeatures: maskOf(MQ, REPLY_ACK),
    features: ALL_FEATURES | maskOf(VirtioFeature.NOTIFY_ON_EMPTY),
    guest: QEMU_GUEST,
    realize: '1/0 15/0 16/8 17/0 3/0 1/0 13/8+1 14/8+1',
    start: QEMU_7_START,
    stop: QEMU_7_STOP,
  },
  {
    title: 'QEMU 10.0.2',
    protocolFeatures: maskOf(MQ, REPLY_ACK),
    guest: QEMU_GUEST,
    realize: '1/0 15/0 16/8 17/0 3/0 1/0 13/8+1 14/8+1',
    start: QEMU_10_START,
    stop: '18!/8(0) 11/8',
    again: QEMU_10_START,
  },
  {
    title: 'Linux 6.12 UML',
    protocolFeatures: maskOf(REPLY_ACK),
    guest: UML_GUEST,
    realize: '3/0 1/0 15/0 16!/8',
    start: '2!/8 5!/72+1 13!/8+1 8!/8 10!/8 9!/40 12!/8+1 18!/8(1)',
    stop: '18!/8(0) 1/0',
    callIsSocket: true,
  },
  {
    title: 'Linux 6.12 UML with BACKEND_REQ',
    protocolFeatures: maskOf(REPLY_ACK, BACKEND_REQ),
    guest: UML_GUEST,
    realize: '3/0 1/0 15/0 16!/8 21!/0+1',
    start: '2!/8 5!/72+1 13!/8+1 8!/8 10!/8 9!/40 12!/8+1 18!/8(1)',
    stop: '18!/8(0) 1/0',
    callIsSocket: true,
  },
  {
    title: 'cloud-hypervisor, pause and resume',
    protocolFeatures: maskOf(MQ, REPLY_ACK, BACKEND_REQ),
    guest: {},
    realize: '3/0 1/0 15/0 16/8 17!/0',
    start: `${CH_SET_UP} 21!/0+1`,
    stop: '18!/8(0)',
    again: '18!/8(1)',
  },
  {
    title: 'crosvm, which never asks for an acknowledgement',
    protocolFeatures: maskOf(MQ, REPLY_ACK, BACKEND_REQ),
    guest: { ringSize: 256 },
    realize: '3/0 1/0 15/0 16/8 21/0+1 17/0',
    start: '2/8 5/40+1 8/8 9/40 10/8 13/8+1 12/8+1 18/8(1)',
    stop: '18/8(0) 11/8',
    again: '2/8 5/40+1 8/8 9/40 10/8 13/8+1 12/8+1 18/8(1)',
  },
];

const stand = await Stand.start({ devices: LIVES.length + 3 * 4 + 1 });
t.teardown(() => stand.stop());
const slotted = await Stand.start({ devices: 2, args: ['--mem-slots=8'] });
t.teardown(() => slotted.stop());

/** Serves a few requests as a driver with EVENT_IDX does, each of which must be signalled. */
function serve(t: Test, frontend: Frontend, guest: SyntheticGuest, fds: { kick: Fd; heard: Fd }): void {
  for (let i = 0; i < 5; i++) {
    guest.ring.setUsedEvent(guest.ring.usedIndex);
    while (readSome(fds.heard, 0) > 0);
    t.equal(guest.serveOnce(frontend, fds.kick), undefined);
    t.ok(readSome(fds.heard, 5000) > 0, 'signalled');
  }
}

for (const life of LIVES) {
  t.test(
    `${life.title}: realized, started, served, stopped${life.again ? ', and started again' : ''}`,
    async (t) => {
      const guest = new SyntheticGuest(life.guest);
      // QEMU's host notifier begins at 1.
      const kick = openEventfd();
      addToEventfd(kick, 1);
      const eventfd = openEventfd();
      const [backendReq, otherEnd] = openSocketPair();
      const [ours, theirs] = life.callIsSocket === true ? openSocketPair() : [eventfd, eventfd];
      const codes = await stand.checked(t, (device) => {
        const frontend = device.connect();
        const { protocolFeatures, features = ALL_FEATURES } = life;
        const values: Values = { features, protocolFeatures, kick, call: theirs, base: 0, backendReq };
        t.equal(replay(frontend, guest, life.realize, values), undefined, 'realized');
        t.equal(replay(frontend, guest, life.start, values), undefined, 'started');
        serve(t, frontend, guest, { kick, heard: ours });
        t.equal(replay(frontend, guest, life.stop, values), undefined, 'stopped');
        if (life.again === undefined) return;
        guest.offer();
        guest.publish();
        const again = { ...values, base: guest.ring.deviceUsedIndex };
        t.equal(replay(frontend, guest, life.again, again), undefined, 'started again');
        t.equal(frontend.waitUsed(guest.ring, 1)[0]?.length, 64, 'what was asked meanwhile is served');
        serve(t, frontend, guest, { kick, heard: ours });
        t.equal(replay(frontend, guest, life.stop, values), undefined, 'stopped again');
      });
      t.strictSame(codes, [], 'nothing was logged as wrong');
      closeAll([kick, backendReq, otherEnd, eventfd, ...(ours === eventfd ? [] : [ours, theirs])]);
      guest.close();
    },
  );
}

interface Reconnect {
  readonly title: string;
  readonly sequence: string;
  readonly protocolFeatures: bigint;
  /** The base that the front-end sends, from the driver's ring. */
  readonly base: (guest: SyntheticGuest) => number;
}

const RECONNECTS: readonly Reconnect[] = [
  {
    title: 'QEMU 7.2, without handshake, NEED_REPLY on SET_MEM_TABLE, base = used.idx',
    sequence: QEMU_7_START,
    protocolFeatures: 0n,
    base: (guest) => guest.ring.deviceUsedIndex,
  },
  {
    title: 'QEMU 7.2 with STATUS, without handshake',
    sequence: '13/8+1 2/8 40/0 39/8 5!/40+1 8/8 10/8 9/40 12/8+1 18/8(1) 13/8+1',
    protocolFeatures: 0n,
    base: (guest) => guest.ring.deviceUsedIndex,
  },
  {
    title: 'cloud-hypervisor, base = avail.idx although used.idx is one behind',
    sequence: `3!/0 1/0 16!/8 ${CH_SET_UP}`,
    protocolFeatures: maskOf(MQ, REPLY_ACK, BACKEND_REQ),
    base: (guest) => guest.ring.availIndex,
  },
  {
    title: 'cloud-hypervisor with IN_ORDER, base = used.idx',
    sequence: `3!/0 1/0 16!/8 ${CH_SET_UP}`,
    protocolFeatures: maskOf(MQ, REPLY_ACK, BACKEND_REQ),
    base: (guest) => guest.ring.deviceUsedIndex,
  },
];

/** Makes requests that nobody serves, then connects anew; the front-end kicks only if it `kicks`. */
function reconnect(
  t: Test,
  device: Device,
  guest: SyntheticGuest,
  how: Reconnect & { pending: number },
): void {
  const kick = openEventfd();
  const call = openEventfd();
  for (let i = 0; i < how.pending; i++) guest.offer(guest.bufferAt + BigInt(i * 64));
  guest.publish();
  guest.ring.setUsedEvent(guest.ring.usedIndex);
  const frontend = device.connect();
  const values: Values = {
    features: ALL_FEATURES,
    protocolFeatures: how.protocolFeatures,
    kick,
    call,
    base: how.base(guest),
  };
  t.equal(replay(frontend, guest, how.sequence, values), undefined, 'set up again');
  const used = frontend.waitUsed(guest.ring, how.pending);
  t.ok(
    used.every(({ length }) => length === 64),
    'what was pending is served, without a kick',
  );
  t.ok(readSome(call, 5000) > 0, 'and signalled');
  t.ok(guest.isFilled(guest.bufferAt, 64 * how.pending));
  serve(t, frontend, guest, { kick, heard: call });
  frontend.close();
  closeFd(kick);
  closeFd(call);
}

for (const how of RECONNECTS) {
  t.test(`reconnect of ${how.title}: pending requests are served`, async (t) => {
    for (const [pending, index] of [
      [1, 0],
      [1, 65_535],
      [8, 65_530],
    ] as const) {
      const guest = new SyntheticGuest({ index });
      const codes = await stand.checked(t, async (device) => {
        const before = stand.footprint();
        const first = device.connect();
        first.setUp(guest.ram, guest.ring, { features: ALL_FEATURES });
        t.equal(guest.serveOnce(first), undefined);
        first.close();
        // Until then the first connection's ring may still serve what is published.
        await stand.settled(before);
        reconnect(t, device, guest, { ...how, pending });
      });
      t.strictSame(codes, [], 'nothing was logged as wrong');
      guest.close();
    }
  });
}

// The front-end reads used.idx while the ring of its last connection may still complete something.
t.test('reconnect with a base one behind used.idx: what was completed is not completed twice', async (t) => {
  const guest = new SyntheticGuest();
  await stand.checked(t, (device) => {
    const first = device.connect();
    first.setUp(guest.ram, guest.ring);
    for (let i = 0; i < 3; i++) t.equal(guest.serveOnce(first), undefined);
    first.close();
    const again = device.connect();
    again.setUp(guest.ram, guest.ring, { base: guest.ring.deviceUsedIndex - 1 });
    t.ok(again.answers());
    t.equal(guest.ring.deviceUsedIndex, 3, 'nothing is completed again');
    t.equal(guest.serveOnce(again), undefined, 'the next request is served');
    t.equal(again.getVringBase(), 4);
  });
  guest.close();
});

t.test('QEMU with CONFIGURE_MEM_SLOTS: memory is added once, and kept over stop and cont', async (t) => {
  const guest = new SyntheticGuest(QEMU_GUEST);
  const kick = openEventfd();
  const call = openEventfd();
  const codes = await slotted.checked(t, (device) => {
    const frontend = device.connect();
    const protocolFeatures = maskOf(MQ, REPLY_ACK, STATUS, CONFIGURE_MEM_SLOTS);
    const values: Values = { features: ALL_FEATURES, protocolFeatures, kick, call, base: 0 };
    const play = (sequence: string, base = 0): unknown =>
      t.equal(replay(frontend, guest, sequence, { ...values, base }), undefined);
    play('1/0 15/0 16/8 17/0 36/0 3/0 1/0 13/8+1 14/8+1');
    play('13/8+1 2/8 40/0 39/8 37!/40+1 8/8 10/8 9/40 12/8+1 18/8(1) 13/8+1');
    serve(t, frontend, guest, { kick, heard: call });
    play(QEMU_7_STOP);
    play('13/8+1 2/8 40/0 39/8 8/8 10/8 9/40 12/8+1 18/8(1) 13/8+1', guest.ring.deviceUsedIndex);
    serve(t, frontend, guest, { kick, heard: call });
    play(QEMU_7_STOP);
  });
  t.strictSame(codes, []);
  closeAll([kick, call]);
  guest.close();
});
