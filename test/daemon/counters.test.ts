// A device's counters: what one end writes is what the other reads, and held time is counted by its reason.
import fc from 'fast-check';
import t from 'tap';
import { COUNTER_WORDS, SeatCounters, Hold, RingState } from '../../daemon/counters.js';

function bothEnds(): { writer: SeatCounters; reader: SeatCounters } {
  const memory = new Float64Array(COUNTER_WORDS);
  return { writer: new SeatCounters(memory), reader: new SeatCounters(memory) };
}

t.test('what the data plane counts is what the main thread reads', (t) => {
  const { writer, reader } = bothEnds();
  writer.served(3, 192);
  writer.served(1, 65_536);
  writer.malformedChain();
  writer.ringFault();
  writer.connectionFault();
  writer.refusedFrontend();
  writer.connected(4711, 107);
  writer.ring(RingState.Running, 256);
  writer.mapped({ regions: 2, bytes: 2 ** 40, sealedRegions: 1 });
  t.match(reader, {
    requests: 4,
    bytes: 65_728,
    malformed: 1,
    ringFaults: 1,
    connectionFaults: 1,
    refusals: 1,
    connections: 1,
    isConnected: true,
    peer: { pid: 4711, uid: 107 },
    ringState: RingState.Running,
    ringSize: 256,
    memory: { regions: 2, bytes: 2 ** 40, sealedRegions: 1 },
  });
  writer.disconnected();
  t.match(reader, { isConnected: false, ringState: RingState.Stopped, requests: 4, connections: 1 });
  t.end();
});

t.test('features of 64 bits come through whole', (t) => {
  fc.assert(
    fc.property(
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      fc.bigInt({ min: 0n, max: 2n ** 53n - 1n }),
      (virtio, protocol) => {
        const { writer, reader } = bothEnds();
        writer.negotiated(virtio, protocol);
        return reader.features === virtio && reader.protocolFeatures === protocol;
      },
    ),
  );
  t.end();
});

t.test('held time is counted by reason, the hold that lasts included', (t) => {
  const { writer, reader } = bothEnds();
  writer.held(Hold.Limit, 1000);
  t.equal(reader.throttledMs(1400), 400, 'while it lasts');
  writer.held(Hold.Limit, 1500);
  t.equal(reader.throttledMs(1600), 600, 'the same reason again goes on');
  writer.held(Hold.Entropy, 2000);
  t.equal(reader.throttledMs(9000), 1000, 'another reason ends it');
  t.equal(reader.starvedMs(2250), 250);
  writer.released(2500);
  t.equal(reader.hold, Hold.None);
  t.equal(reader.starvedMs(9000), 500);
  writer.held(Hold.Pause, 3000);
  writer.released(4000);
  t.equal(reader.throttledMs(9000), 1000, 'a pause is neither');
  t.match(reader, { heldForLimit: 2, heldForEntropy: 1 });
  t.end();
});
