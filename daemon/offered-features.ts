// What the daemon offers to every front-end, what it takes beside that, and which request depends on what.
import { maskOf, ProtocolFeature, VirtioFeature } from '../protocol/features.js';
import { FrontendRequest } from '../protocol/request.js';

/** One ring: the entropy device has one virtqueue. Source: virtio-v1.3 §5.4.2. */
export const QUEUES = 1n;

/** What the daemon offers to every front-end. */
export const OFFERED_FEATURES = maskOf(
  VirtioFeature.INDIRECT_DESC,
  VirtioFeature.EVENT_IDX,
  VirtioFeature.VERSION_1,
  VirtioFeature.PROTOCOL_FEATURES,
);

/**
 * Bits that a guest may negotiate although we did not offer them, since QEMU passes its own offer on: they ask
 * nothing of the back-end, or (NOTIFY_ON_EMPTY) are implemented.
 */
export const TOLERATED_FEATURES = maskOf(
  VirtioFeature.NOTIFY_ON_EMPTY,
  VirtioFeature.ANY_LAYOUT,
  VirtioFeature.IN_ORDER,
  VirtioFeature.ORDER_PLATFORM,
  VirtioFeature.NOTIFICATION_DATA,
  VirtioFeature.RING_RESET,
);

/** What an operator does when a VMM insists on a feature that the daemon cannot serve. */
export const FEATURE_FIXES: readonly (readonly [number, string])[] = [
  [VirtioFeature.RING_PACKED, 'start QEMU without packed=on'],
  [VirtioFeature.ACCESS_PLATFORM, 'start QEMU without iommu_platform=on for this device'],
];

/** Protocol features that are always offered; CONFIGURE_MEM_SLOTS only with `--mem-slots`. */
export const OFFERED_PROTOCOL_FEATURES = maskOf(
  ProtocolFeature.MQ,
  ProtocolFeature.REPLY_ACK,
  ProtocolFeature.BACKEND_REQ,
  ProtocolFeature.RESET_DEVICE,
  ProtocolFeature.STATUS,
);

/** QEMU 7.2 reconnects without negotiating again, and then sends what needs STATUS if it was agreed before. */
export const ASSUMED_PROTOCOL_FEATURES = maskOf(ProtocolFeature.STATUS);

/** The protocol feature that a request depends on. Source: vhost-user, at each request. */
export const NEEDS: ReadonlyMap<number, number> = new Map<number, number>([
  [FrontendRequest.GetQueueNum, ProtocolFeature.MQ],
  [FrontendRequest.SetBackendReqFd, ProtocolFeature.BACKEND_REQ],
  [FrontendRequest.ResetDevice, ProtocolFeature.RESET_DEVICE],
  [FrontendRequest.SetStatus, ProtocolFeature.STATUS],
  [FrontendRequest.GetStatus, ProtocolFeature.STATUS],
  [FrontendRequest.GetMaxMemSlots, ProtocolFeature.CONFIGURE_MEM_SLOTS],
  [FrontendRequest.AddMemReg, ProtocolFeature.CONFIGURE_MEM_SLOTS],
  [FrontendRequest.RemMemReg, ProtocolFeature.CONFIGURE_MEM_SLOTS],
]);
