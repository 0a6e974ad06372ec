// vhost-user, "Ring states", SET_VRING_NUM, ADDR, BASE, KICK, CALL and ENABLE: bad-input.md, "Vring set-up", rows 68 to
// 80, against the real daemon. How a ring stops (rows 81 to 84) is in vring-stop.test.ts.
//
// Left out: the packed base of row 77, since packed rings are not offered (framing.test.ts, where row 81c stands too).
import t from 'tap';
import { U64_BYTES, Writer } from '../../protocol/cursor.js';
import type { FrontendMessage } from '../../protocol/message.js';
import { FrontendRequest, frontendRequestName } from '../../protocol/request.js';
import { openEventfd } from '../../shared-memory/eventfd.js';
import { ringBytes } from '../../shared-memory/ring-memory.js';
import type { Frontend } from '../support/frontend.js';
import { checkRefusal, type Refusal, Stage, wire, type WireMessage } from './refusals.js';
import { Stand } from './stand.js';
import { SyntheticGuest } from './synthetic-guest.js';

const { SetVringNum, SetVringBase, SetVringEnable, GetVringBase, SetVringKick, SetVringCall } =
  FrontendRequest;
const { SetVringErr } = FrontendRequest;
/** Region of the usual guest in the front-end's addresses, and what lies behind its last byte. */
const USER_START = 0x7f00_0001_0000n;
const USER_END = USER_START + (1n << 20n);

function state(
  title: string,
  code: string,
  message: { request: 8 | 10 | 11 | 18; index: number; num: number },
): Refusal {
  return { title, code, message: () => wire(message) };
}

function addr(
  title: string,
  code: string,
  change: Parameters<SyntheticGuest['vringAddr']>[0],
  stage?: Stage,
): Refusal {
  const message = (guest: SyntheticGuest): WireMessage => wire(guest.vringAddr(change));
  return { title, code, message, ...(stage !== undefined && { stage }) };
}

function vringFd(request: number, value: bigint): WireMessage {
  return { request, payload: new Writer(U64_BYTES).u64(value).finish(), fds: [openEventfd()] };
}

const INDICES = [1, 255, 0x1_0000, 0xffff_ffff];
const stopped = { stage: Stage.Mapped } as const;
const availBytes = BigInt(ringBytes.availRing(8));
const usedBytes = BigInt(ringBytes.usedRing(8));

const REFUSALS: readonly Refusal[] = [
  ...([SetVringNum, SetVringBase, SetVringEnable, GetVringBase] as const).flatMap((request) =>
    INDICES.map((index) =>
      state(`68: ${frontendRequestName(request)} of ring 0x${index.toString(16)}`, 'vring_index', {
        request,
        index,
        num: 1,
      }),
    ),
  ),
  ...INDICES.map((index) =>
    addr(`68: SET_VRING_ADDR of ring 0x${index.toString(16)}`, 'vring_index', { index }),
  ),
  ...[SetVringKick, SetVringCall, SetVringErr].flatMap((request) => [
    {
      title: `68: ${frontendRequestName(request)} of ring 255`,
      code: 'vring_index',
      message: () => vringFd(request, 255n),
    },
    {
      title: `68: ${frontendRequestName(request)} with bit 9`,
      code: 'vring_fd_reserved_bits',
      message: () => vringFd(request, 0x200n),
    },
  ]),
  ...[0, 3, 32_769, 0x1_0000, 0x8000_0000, 0xffff_ffff].map((num) => ({
    ...state(`69: SET_VRING_NUM ${num}`, 'vring_num', { request: SetVringNum, index: 0, num }),
    ...stopped,
  })),
  state('71: SET_VRING_NUM while running', 'vring_running', { request: SetVringNum, index: 0, num: 16 }),
  state('71: SET_VRING_BASE while running', 'vring_running', { request: SetVringBase, index: 0, num: 0 }),
  addr('72: descriptor table off 16', 'vring_alignment', { descUserAddr: USER_START + 8n }),
  addr('72: available ring off 2', 'vring_alignment', { availUserAddr: USER_START + 1n }),
  addr('72: used ring off 4', 'vring_alignment', { usedUserAddr: USER_START + 2n }),
  addr('73: descriptor table outside', 'vring_uncovered', { descUserAddr: 0n }),
  addr('73: descriptor table, last byte outside', 'vring_uncovered', { descUserAddr: USER_END - 112n }),
  addr('73: descriptor table before the region', 'vring_uncovered', { descUserAddr: USER_START - 16n }),
  addr('73: available ring, only used_event outside', 'vring_uncovered', {
    availUserAddr: USER_END - availBytes + 2n,
  }),
  addr('73: used ring, only avail_event outside', 'vring_uncovered', {
    usedUserAddr: USER_END - usedBytes + 4n - (usedBytes % 4n),
  }),
  addr('73: used ring at the end of 64 bits', 'vring_uncovered', { usedUserAddr: (1n << 64n) - 4n }),
  addr('73: guest-physical instead of user addresses', 'vring_uncovered', { descUserAddr: 0x2_0000n }),
  addr('75: SET_VRING_ADDR before SET_VRING_NUM', 'vring_no_num', {}, Stage.Mapped),
  addr('76: unknown bits in flags', 'vring_flags', { flags: 2 }),
  addr('76: bit 31 in flags', 'vring_flags', { flags: 0x8000_0000 }),
  ...[0x1_0000, 0x8000_0000, 0xffff_ffff].map((num) => ({
    ...state(`77: SET_VRING_BASE ${num}`, 'vring_base', { request: SetVringBase, index: 0, num }),
    ...stopped,
  })),
  ...[2, 0x1_0000, 0xffff_ffff].map((num) =>
    state(`79: SET_VRING_ENABLE ${num}`, 'vring_enable', { request: SetVringEnable, index: 0, num }),
  ),
];

const stand = await Stand.start({ devices: REFUSALS.length + 12 });
t.teardown(() => stand.stop());

for (const refused of REFUSALS) t.test(`row ${refused.title}: NACK`, (t) => checkRefusal(t, stand, refused));

t.test('row 75: SET_VRING_ADDR before any memory table: NACK', async (t) => {
  const guest = new SyntheticGuest();
  const codes = await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.negotiate();
    frontend.expectOk({ request: SetVringNum, index: 0, num: 8 });
    t.equal(frontend.acknowledged(guest.vringAddr()), false);
    frontend.setMemTable(guest.ram);
    frontend.startRing(guest.ram, guest.ring, 0);
    t.equal(guest.serveOnce(frontend), undefined);
  });
  t.strictSame(codes, ['vring_no_memory']);
  guest.close();
});

t.test(
  'row 73: a part that straddles two regions, adjacent for the front-end but not here: NACK',
  async (t) => {
    const middle = 0x3_0000n;
    const guest = new SyntheticGuest({
      regions: [
        { guestPhysAddr: 0x1_0000n, bytes: 0x2_0000 },
        { guestPhysAddr: middle, bytes: 1 << 20 },
      ],
    });
    const codes = await stand.checked(t, (device) => {
      const frontend = device.connect();
      frontend.setUp(guest.ram, guest.ring);
      const edge = guest.ram.userAddr(middle);
      for (const part of ['descUserAddr', 'availUserAddr', 'usedUserAddr'] as const) {
        t.equal(frontend.acknowledged(guest.vringAddr({ [part]: edge - 16n })), false, part);
        t.equal(guest.serveOnce(frontend), undefined);
      }
    });
    t.strictSame(codes, ['vring_uncovered']);
    guest.close();
  },
);

t.test('row 73: parts that end with the last byte of their region are served', async (t) => {
  const guest = new SyntheticGuest({
    regions: [
      { guestPhysAddr: 0x1_0000n, bytes: 0x2_0000 },
      { guestPhysAddr: 0x10_0000n, bytes: 1 << 20 },
    ],
    bufferAt: 0x14_0000n,
  });
  await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.negotiate();
    const regions = guest.ram.regions.map((whole, i) =>
      i > 0 ? whole : { ...whole, size: guest.ring.end - whole.guestPhysAddr },
    );
    frontend.expectOk({ request: FrontendRequest.SetMemTable, regions }, guest.ram.fds);
    frontend.startRing(guest.ram, guest.ring, 0);
    t.equal(guest.serveOnce(frontend), undefined);
  });
  guest.close();
});

t.test('row 76: the LOG flag without a log is accepted, nothing is logged', async (t) => {
  const guest = new SyntheticGuest();
  await stand.checked(t, (device) => {
    const frontend = device.connect();
    frontend.setUp(guest.ram, guest.ring);
    t.equal(frontend.acknowledged(guest.vringAddr({ flags: 1, logGuestAddr: 0x8_0000n })), true);
    t.equal(guest.serveOnce(frontend), undefined);
  });
  guest.close();
});

t.test('row 69: the largest ring, 32768, and the smallest, 1, are served', async (t) => {
  await stand.checked(t, (device) => {
    for (const ringSize of [1, 2, 32_768]) {
      const guest = new SyntheticGuest({
        regions: [{ guestPhysAddr: 0x10000n, bytes: 4 << 20 }],
        bufferAt: 0x30_0000n,
        ringSize,
      });
      const frontend = device.connect();
      frontend.setUp(guest.ram, guest.ring);
      for (let i = 0; i < 5; i++) t.equal(guest.serveOnce(frontend), undefined, `size ${ringSize}`);
      frontend.close();
      guest.close();
    }
  });
});

const STEPS = ['NUM', 'ADDR', 'BASE', 'KICK', 'CALL', 'ENABLE'] as const;
type Step = (typeof STEPS)[number];

function orders(steps: readonly Step[]): Step[][] {
  if (steps.length === 0) return [[]];
  return steps.flatMap((first) =>
    orders(steps.filter((step) => step !== first)).map((rest) => [first, ...rest]),
  );
}

/** All orders with ADDR after NUM, and BASE before the ring runs: a running ring refuses it (row 71). */
const LEGAL = orders(STEPS).filter((order) => {
  const at = (step: Step): number => order.indexOf(step);
  return at('NUM') < at('ADDR') && at('BASE') < Math.max(at('ADDR'), at('KICK'), at('ENABLE'));
});

t.test(`row 80: all ${LEGAL.length} legal orders of set-up serve, and lose no first kick`, async (t) => {
  await stand.checked(t, (device) => {
    for (const order of LEGAL) {
      const guest = new SyntheticGuest({
        index: 65_533,
        regions: [{ guestPhysAddr: 0x10000n, bytes: 0x40000 }],
      });
      const failed = setUpInOrder(device.connect(), guest, order);
      if (failed !== undefined) t.fail(`${order.join(' ')}: ${failed}`);
      guest.close();
    }
  });
});

/** A request and its kick are there before the set-up; another comes behind it. What is wrong, or undefined. */
function setUpInOrder(frontend: Frontend, guest: SyntheticGuest, order: readonly Step[]): string | undefined {
  const messages: Readonly<Record<Step, FrontendMessage>> = {
    NUM: { request: SetVringNum, index: 0, num: guest.ring.size },
    ADDR: guest.vringAddr(),
    BASE: { request: SetVringBase, index: 0, num: 65_533 },
    KICK: { request: SetVringKick, index: 0, noFd: false },
    CALL: { request: SetVringCall, index: 0, noFd: false },
    ENABLE: { request: SetVringEnable, index: 0, num: 1 },
  };
  const fds = { KICK: [frontend.kick], CALL: [frontend.call], NUM: [], ADDR: [], BASE: [], ENABLE: [] };
  frontend.negotiate();
  frontend.setMemTable(guest.ram);
  guest.offer(0x3_0000n);
  guest.publish();
  frontend.kickRing();
  for (const step of order) frontend.expectOk(messages[step], fds[step]);
  if (frontend.waitCall() === 0) return 'call was not signalled';
  const [first] = frontend.waitUsed(guest.ring, 1);
  if (first?.length !== 64) return `the first request got ${JSON.stringify(first)}`;
  const failed = guest.serveOnce(frontend) ?? guest.strayWrites()[0];
  frontend.close();
  return failed;
}
