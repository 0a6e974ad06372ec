// One runner for every message that is refused: NACK with its state unchanged where the front-end waits for an answer,
// the end of the connection where it does not.
import { encodeFrontendMessage, type FrontendMessage } from '../../protocol/message.js';
import { maskOf, ProtocolFeature } from '../../protocol/features.js';
import { FrontendRequest } from '../../protocol/request.js';
import type { Fd } from '../../shared-memory/fd.js';
import { DEFAULT_FEATURES, type Frontend } from '../support/frontend.js';
import type { Stand } from './stand.js';
import { closeAll, SyntheticGuest } from './synthetic-guest.js';

/** How far the front-end has set the device up, in QEMU's order. */
export const Stage = { Fresh: 0, Negotiated: 1, Mapped: 2, Sized: 3, Running: 4 } as const;
export type Stage = (typeof Stage)[keyof typeof Stage];

/** Negotiated wherever the daemon offers it. */
const SLOTS = maskOf(ProtocolFeature.CONFIGURE_MEM_SLOTS);

/** A message as it goes over the wire; the runner closes `fds`. */
export interface WireMessage {
  readonly request: number;
  readonly payload: Uint8Array;
  readonly fds?: readonly Fd[];
}

/** A message that is refused at some stage. */
export interface Refusal {
  readonly title: string;
  /** The stable code of the refusal. */
  readonly code: string;
  /** Running unless told otherwise. */
  readonly stage?: Stage;
  /** Made anew for each try. */
  readonly message: (guest: SyntheticGuest) => WireMessage;
}

interface Test {
  ok(value: unknown, title: string): boolean;
  strictSame(found: unknown, wanted: unknown, title: string): boolean;
}

/** A message by its fields. */
export function wire(message: FrontendMessage, fds: readonly Fd[] = []): WireMessage {
  return { request: message.request, payload: encodeFrontendMessage(message), fds };
}

/** Goes on from one stage to another, later one. */
export function advance(frontend: Frontend, guest: SyntheticGuest, from: Stage, to: Stage): void {
  if (from < Stage.Negotiated && to >= Stage.Negotiated) {
    const more = frontend.getU64(FrontendRequest.GetProtocolFeatures) & SLOTS;
    frontend.negotiate(DEFAULT_FEATURES, more);
  }
  if (from < Stage.Mapped && to >= Stage.Mapped) frontend.setMemTable(guest.ram);
  if (from < Stage.Sized && to >= Stage.Sized)
    frontend.expectOk({ request: FrontendRequest.SetVringNum, index: 0, num: guest.ring.size });
  if (from < Stage.Running && to >= Stage.Running)
    frontend.startRing(guest.ram, guest.ring, guest.ring.availIndex);
}

/** Sends a message and closes its fds here; the answer to NEED_REPLY is still to be received. */
export function sendWire(frontend: Frontend, message: WireMessage, needReply: boolean): void {
  const { request, payload, fds = [] } = message;
  frontend.sendRequest(request, payload, { fds, needReply });
  closeAll(fds);
}

/** Checks one refusal: with NEED_REPLY, then the service that goes on; without, the end of the connection. */
export async function checkRefusal(t: Test, stand: Stand, refusal: Refusal): Promise<void> {
  const stage = refusal.stage ?? Stage.Running;
  const guest = new SyntheticGuest();
  const codes = await stand.checked(t, async (device) => {
    const patient = device.connect();
    advance(patient, guest, Stage.Fresh, stage);
    const held = await stand.steadyFootprint(patient);
    sendWire(patient, refusal.message(guest), true);
    t.strictSame(patient.receiveAck(), false, 'NEED_REPLY is answered with a NACK');
    await stand.holdsNoMoreThan(held, patient);
    advance(patient, guest, stage, Stage.Running);
    t.strictSame(guest.serveOnce(patient), undefined, 'the state is unchanged: the ring is served');
    patient.close();

    const hasty = device.connect();
    advance(hasty, guest, Stage.Fresh, stage);
    sendWire(hasty, refusal.message(guest), false);
    t.ok(hasty.isClosed(), 'without NEED_REPLY the connection is closed');
    t.strictSame(guest.strayWrites(), [], 'nothing was written to the guest');
  });
  t.strictSame(codes, [refusal.code, refusal.code], 'each is logged once');
  guest.close();
}
