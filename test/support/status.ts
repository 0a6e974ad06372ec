// What a daemon answers, made up: for views that are tested without one.
import type { DeviceStatus, SourceStatus, Status } from '../../daemon/control/shapes.js';

/** A device with a guest that has read nothing yet. */
export function deviceStatus(name: string, changes: Partial<DeviceStatus> = {}): DeviceStatus {
  return {
    name,
    socket: `/run/vhost-rngd/${name}.sock`,
    state: 'connected',
    limit: null,
    weight: 1,
    sources: ['random:/dev/random'],
    mix: false,
    ownSources: false,
    maxConnections: 1,
    frontEnds: [
      {
        pid: 4242,
        uid: 107,
        virtioFeatures: ['VERSION_1'],
        protocolFeatures: ['MQ'],
        memory: { regions: 2, bytes: 1 << 30, sealed: true },
        ring: { state: 'running', size: 8, heldFor: null },
      },
    ],
    requests: 0,
    bytes: 0,
    malformedChains: 0,
    ringFaults: 0,
    connectionFaults: 0,
    connections: 1,
    refusedConnections: 0,
    throttledSeconds: 0,
    starvedSeconds: 0,
    latency: { p50Seconds: 0.000012, p99Seconds: 0.0015 },
    lastError: null,
    ...changes,
  };
}

export function sourceStatus(spec: string, changes: Partial<SourceStatus> = {}): SourceStatus {
  return {
    spec,
    state: 'healthy',
    reason: null,
    permanent: false,
    minEntropy: 8,
    bytes: 0,
    failures: 0,
    reopens: 0,
    alarms: { repetition: 0, adaptive: 0, permanent: 0 },
    repeatedBlocks: 0,
    fips: { blocks: 0, failures: 0 },
    ...changes,
  };
}

/** A daemon in good health. */
export function daemonStatus(changes: Partial<Status> = {}): Status {
  return {
    version: '0.1.0',
    pid: 100,
    uptimeSeconds: 3700,
    health: { status: 'ok', reasons: [] },
    droppedLogLines: 0,
    devices: [],
    sources: [sourceStatus('random:/dev/random')],
    ...changes,
  };
}
