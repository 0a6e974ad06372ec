// Random well-formed front-end messages for the properties, one arbitrary for each request, by number.
// The numbers are written out, so that a request which the codec mixes up does not follow it here.

import fc from 'fast-check';
import type { FrontendMessage } from '../../protocol/message.js';
import type { FrontendRequest } from '../../protocol/request.js';

export interface RequestArbitrary {
  readonly request: number;
  readonly messages: fc.Arbitrary<FrontendMessage>;
}

const U64_MAX = 2n ** 64n - 1n;
const u8 = fc.integer({ min: 0, max: 0xff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.oneof(
  fc.integer({ min: 0, max: 0xffff_ffff }),
  fc.constantFrom(0, 1, 0x8000_0000, 0xffff_ffff),
);
/** With the values at which a codec that goes through `number` rounds. */
export const u64: fc.Arbitrary<bigint> = fc.oneof(
  fc.bigInt({ min: 0n, max: U64_MAX }),
  fc.constantFrom(0n, 2n ** 53n - 1n, 2n ** 53n + 1n, 2n ** 63n, 2n ** 63n + 1n, U64_MAX),
);
const region = record({ guestPhysAddr: u64, size: u64, userAddr: u64, mmapOffset: u64 });
const logArea = record({ kind: fc.constant('area' as const), mmapSize: u64, mmapOffset: u64 });
const logAddress = record({ kind: fc.constant('address' as const), address: u64 });
const config = record({ offset: u32, flags: u32, bytes: fc.uint8Array({ maxLength: 300 }) }).map(
  (fields) => ({ ...fields, size: fields.bytes.length }),
);

/** All 44 requests, in order. */
export const ARBITRARIES: readonly RequestArbitrary[] = [
  each([1, 3, 4, 7, 15, 17, 21, 28, 29, 30, 33, 34, 36, 40, 43, 44], fc.constant({})),
  each([2, 16], record({ features: u64 })),
  each([5], record({ regions: fc.array(region, { minLength: 1, maxLength: 8 }) })),
  each([6], record({ log: fc.oneof(logArea, logAddress) })),
  each([8, 10, 11, 18, 23, 35], record({ index: u32, num: u32 })),
  each(
    [9],
    record({
      index: u32,
      flags: u32,
      descUserAddr: u64,
      usedUserAddr: u64,
      availUserAddr: u64,
      logGuestAddr: u64,
    }),
  ),
  each([12, 13, 14], record({ index: u8, noFd: fc.boolean() })),
  each([19], record({ mac: u64 })),
  each([20], record({ mtu: u64 })),
  each([22], record({ iova: u64, size: u64, userAddr: u64, permissions: u8, type: u8 })),
  each([24, 25], config),
  each([26], record({ session: fc.uint8Array({ maxLength: 1600 }) })),
  each([27], record({ sessionId: u64 })),
  each(
    [31, 32],
    record({
      mmapSize: u64,
      mmapOffset: u64,
      numQueues: u16,
      queueSize: u16,
      paddingBytes: fc.constantFrom(0 as const, 4 as const),
    }),
  ),
  each([37, 38], record({ region })),
  each([39], record({ status: u64 })),
  each([41], record({ uuid: fc.uint8Array({ minLength: 16, maxLength: 16 }) })),
  each([42], record({ direction: u32, phase: u32 })),
]
  .flat()
  .sort((a, b) => a.request - b.request);

/** Any of them. */
export const anyMessage: fc.Arbitrary<FrontendMessage> = fc.oneof(
  ...ARBITRARIES.map(({ messages }) => messages),
);

function each<const R extends FrontendRequest, F extends object>(
  requests: readonly R[],
  fields: fc.Arbitrary<F>,
): { request: R; messages: fc.Arbitrary<{ request: R } & F> }[] {
  return requests.map((request) => ({ request, messages: fields.map((value) => ({ request, ...value })) }));
}

/** Plain objects, as the codec makes them, because deepEqual looks at the prototype. */
function record<F extends object>(model: { [K in keyof F]: fc.Arbitrary<F[K]> }): fc.Arbitrary<F> {
  return fc.record<F>(model).map((fields) => ({ ...fields }));
}
