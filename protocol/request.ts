// The requests of both directions by number, and for each of the front-end's what may come with it: which payload,
// how many file descriptors, which answer. Framing is judged by this table before a message reaches the device.
// Spec: vhost-user, "Front-end message types" and "Back-end message types"; 44, 9 and 10 from newer QEMU.

import type { PayloadShape } from './payload.js';

/** Requests that a front-end sends, by number. */
export const FrontendRequest = {
  GetFeatures: 1,
  SetFeatures: 2,
  SetOwner: 3,
  ResetOwner: 4,
  SetMemTable: 5,
  SetLogBase: 6,
  SetLogFd: 7,
  SetVringNum: 8,
  SetVringAddr: 9,
  SetVringBase: 10,
  GetVringBase: 11,
  SetVringKick: 12,
  SetVringCall: 13,
  SetVringErr: 14,
  GetProtocolFeatures: 15,
  SetProtocolFeatures: 16,
  GetQueueNum: 17,
  SetVringEnable: 18,
  SendRarp: 19,
  NetSetMtu: 20,
  SetBackendReqFd: 21,
  IotlbMsg: 22,
  SetVringEndian: 23,
  GetConfig: 24,
  SetConfig: 25,
  CreateCryptoSession: 26,
  CloseCryptoSession: 27,
  PostcopyAdvise: 28,
  PostcopyListen: 29,
  PostcopyEnd: 30,
  GetInflightFd: 31,
  SetInflightFd: 32,
  GpuSetSocket: 33,
  ResetDevice: 34,
  VringKick: 35,
  GetMaxMemSlots: 36,
  AddMemReg: 37,
  RemMemReg: 38,
  SetStatus: 39,
  GetStatus: 40,
  GetSharedObject: 41,
  SetDeviceStateFd: 42,
  CheckDeviceState: 43,
  GetShmemConfig: 44,
} as const;
export type FrontendRequest = (typeof FrontendRequest)[keyof typeof FrontendRequest];

/** Requests that a back-end sends over the socket of SET_BACKEND_REQ_FD, by number. */
export const BackendRequest = {
  IotlbMsg: 1,
  ConfigChangeMsg: 2,
  VringHostNotifierMsg: 3,
  VringCall: 4,
  VringErr: 5,
  SharedObjectAdd: 6,
  SharedObjectRemove: 7,
  SharedObjectLookup: 8,
  ShmemMap: 9,
  ShmemUnmap: 10,
} as const;
export type BackendRequest = (typeof BackendRequest)[keyof typeof BackendRequest];

/** What may travel with one front-end request, and how it is answered. */
export interface FrontendRequestSpec {
  readonly payload: PayloadShape;
  /** The most file descriptors it may carry; `per-region`: one for each region of its payload. */
  readonly maxFds: 0 | 1 | 'per-region';
  /** Whether it is answered without NEED_REPLY too; then NEED_REPLY adds no second answer. */
  readonly ownReply: boolean;
}

/** The specification's table of front-end requests, by number. */
export const FRONTEND_REQUEST_SPECS = {
  [FrontendRequest.GetFeatures]: { payload: 'none', maxFds: 0, ownReply: true },
  [FrontendRequest.SetFeatures]: { payload: 'features', maxFds: 0, ownReply: false },
  [FrontendRequest.SetOwner]: { payload: 'none', maxFds: 0, ownReply: false },
  [FrontendRequest.ResetOwner]: { payload: 'none', maxFds: 0, ownReply: false },
  // Replies of its own to SET_MEM_TABLE, ADD_MEM_REG and REM_MEM_REG exist in postcopy only, which is not offered.
  [FrontendRequest.SetMemTable]: { payload: 'memTable', maxFds: 'per-region', ownReply: false },
  // Its own reply only with LOG_SHMFD, and then its fd too.
  [FrontendRequest.SetLogBase]: { payload: 'logBase', maxFds: 1, ownReply: true },
  [FrontendRequest.SetLogFd]: { payload: 'none', maxFds: 1, ownReply: false },
  [FrontendRequest.SetVringNum]: { payload: 'vringState', maxFds: 0, ownReply: false },
  [FrontendRequest.SetVringAddr]: { payload: 'vringAddr', maxFds: 0, ownReply: false },
  [FrontendRequest.SetVringBase]: { payload: 'vringState', maxFds: 0, ownReply: false },
  [FrontendRequest.GetVringBase]: { payload: 'vringState', maxFds: 0, ownReply: true },
  // These three: no fd when the payload says so (noFd), else one.
  [FrontendRequest.SetVringKick]: { payload: 'vringFd', maxFds: 1, ownReply: false },
  [FrontendRequest.SetVringCall]: { payload: 'vringFd', maxFds: 1, ownReply: false },
  [FrontendRequest.SetVringErr]: { payload: 'vringFd', maxFds: 1, ownReply: false },
  [FrontendRequest.GetProtocolFeatures]: { payload: 'none', maxFds: 0, ownReply: true },
  [FrontendRequest.SetProtocolFeatures]: { payload: 'features', maxFds: 0, ownReply: false },
  [FrontendRequest.GetQueueNum]: { payload: 'none', maxFds: 0, ownReply: true },
  [FrontendRequest.SetVringEnable]: { payload: 'vringState', maxFds: 0, ownReply: false },
  [FrontendRequest.SendRarp]: { payload: 'mac', maxFds: 0, ownReply: false },
  [FrontendRequest.NetSetMtu]: { payload: 'mtu', maxFds: 0, ownReply: false },
  [FrontendRequest.SetBackendReqFd]: { payload: 'none', maxFds: 1, ownReply: false },
  [FrontendRequest.IotlbMsg]: { payload: 'iotlb', maxFds: 0, ownReply: true },
  [FrontendRequest.SetVringEndian]: { payload: 'vringState', maxFds: 0, ownReply: false },
  [FrontendRequest.GetConfig]: { payload: 'config', maxFds: 0, ownReply: true },
  [FrontendRequest.SetConfig]: { payload: 'config', maxFds: 0, ownReply: false },
  [FrontendRequest.CreateCryptoSession]: { payload: 'cryptoSession', maxFds: 0, ownReply: true },
  [FrontendRequest.CloseCryptoSession]: { payload: 'cryptoSessionId', maxFds: 0, ownReply: false },
  [FrontendRequest.PostcopyAdvise]: { payload: 'none', maxFds: 0, ownReply: true },
  [FrontendRequest.PostcopyListen]: { payload: 'none', maxFds: 0, ownReply: false },
  [FrontendRequest.PostcopyEnd]: { payload: 'none', maxFds: 0, ownReply: true },
  [FrontendRequest.GetInflightFd]: { payload: 'inflight', maxFds: 0, ownReply: true },
  [FrontendRequest.SetInflightFd]: { payload: 'inflight', maxFds: 1, ownReply: false },
  [FrontendRequest.GpuSetSocket]: { payload: 'none', maxFds: 1, ownReply: false },
  [FrontendRequest.ResetDevice]: { payload: 'none', maxFds: 0, ownReply: false },
  [FrontendRequest.VringKick]: { payload: 'vringState', maxFds: 0, ownReply: false },
  [FrontendRequest.GetMaxMemSlots]: { payload: 'none', maxFds: 0, ownReply: true },
  [FrontendRequest.AddMemReg]: { payload: 'memRegion', maxFds: 1, ownReply: false },
  // The spec wants none but lets a back-end accept one from older front-ends; it must then be closed unused.
  [FrontendRequest.RemMemReg]: { payload: 'memRegion', maxFds: 1, ownReply: false },
  [FrontendRequest.SetStatus]: { payload: 'status', maxFds: 0, ownReply: false },
  [FrontendRequest.GetStatus]: { payload: 'none', maxFds: 0, ownReply: true },
  [FrontendRequest.GetSharedObject]: { payload: 'sharedObject', maxFds: 0, ownReply: true },
  [FrontendRequest.SetDeviceStateFd]: { payload: 'deviceState', maxFds: 1, ownReply: true },
  [FrontendRequest.CheckDeviceState]: { payload: 'none', maxFds: 0, ownReply: true },
  [FrontendRequest.GetShmemConfig]: { payload: 'none', maxFds: 0, ownReply: true },
} as const satisfies Readonly<Record<FrontendRequest, FrontendRequestSpec>>;

/** Whether the specification knows a front-end request of this number. */
export function isFrontendRequest(request: number): request is FrontendRequest {
  return Object.hasOwn(FRONTEND_REQUEST_SPECS, request);
}

/** What may travel with request number `request`; undefined for a number that the specification does not know. */
export function frontendRequestSpec(request: number): FrontendRequestSpec | undefined {
  return isFrontendRequest(request) ? FRONTEND_REQUEST_SPECS[request] : undefined;
}

/** The specification's name of a request without its prefix, such as `SET_MEM_TABLE`; `request 99` if unknown. */
export function frontendRequestName(request: number): string {
  return WIRE_NAMES.get(request) ?? `request ${request}`;
}

const WIRE_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(FrontendRequest).map(([name, request]) => [request, wireName(name)]),
);

/** `SetMemTable` as the specification writes it: `SET_MEM_TABLE`. */
function wireName(name: string): string {
  return name.replaceAll(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase();
}
