// What one device has done since the daemon started; kept over reconnects.

/** Counts of one device. */
export interface DeviceCounters {
  /** Requests completed with at least one byte. */
  requests: number;
  /** Bytes of entropy that were delivered. */
  bytes: number;
  /** Malformed chains, completed with 0 bytes. */
  malformed: number;
  /** Rings that were stopped because of what the guest or the VMM did. */
  ringFaults: number;
  /** Connections that were closed because of what the VMM sent. */
  connectionFaults: number;
  /** Passes that ended with a request held for the rate limit, for the host's budget, and for want of entropy. */
  heldForLimit: number;
  heldForBudget: number;
  heldForEntropy: number;
}

export function newCounters(): DeviceCounters {
  return {
    requests: 0,
    bytes: 0,
    malformed: 0,
    ringFaults: 0,
    connectionFaults: 0,
    heldForLimit: 0,
    heldForBudget: 0,
    heldForEntropy: 0,
  };
}
