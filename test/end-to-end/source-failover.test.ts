// A real guest reads on while the first of two sources is pulled, jams, becomes slow and comes back: the second serves meanwhile,
// which the daemon's log says, and nothing of the jam is among what the guest has read. Rows F21 to F24.
//
// The first source is a FIFO that the test feeds (`--allow-test-sources`), so its bytes are known; the second is the kernel.
import { setTimeout } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { BLOCK_BYTES } from '../../daemon/entropy/health-tests.js';
import { replace } from '../support/fed-sources.js';
import { type Fifo, makeFifo } from '../support/fifo.js';
import { goodBytes } from '../support/good-bytes.js';
import { endToEnd } from '../support/guest/end-to-end.js';
import type { Guest } from '../support/guest/guest.js';

/** More than what waits in the daemon of a source that has gone: a queue, a pool and a block. */
const PHASE_BYTES = 64 * 1024;
const READ_BYTES = 4096;
/** What the Linux driver asks for at a time: the piece of a source that a guest's bytes are made of. */
const REQUEST_BYTES = 64;
/** A read that takes longer has stalled. */
const READ_TIMEOUT_MS = 20_000;
const LOG_MS = 60_000;
/** The daemon tells of the same twice in 10 s; two phases of this length lie between two changes of a kind. */
const PHASE_MS = 2500;
const FEED_EVERY_MS = 4;
const JAM = 0x5a;

/** Keeps a FIFO fed in one of several ways. */
class Feeder {
  /** Every 64 bytes at a multiple of 64 of what good sources have given. */
  readonly given = new Set<string>();
  private readonly fifo: Fifo;
  private readonly timer: NodeJS.Timeout;
  private waysBytes: () => Buffer = () => Buffer.alloc(0);
  private position = 0;
  private readonly singles = goodBytes(4096, 81);
  private singlesGiven = 0;

  constructor(t: Pick<Test, 'teardown'>, fifo: Fifo) {
    this.fifo = fifo;
    this.timer = setInterval(() => this.feed(), FEED_EVERY_MS);
    t.teardown(() => clearInterval(this.timer));
  }

  /** Good bytes, a block at a time: more than an emulated guest can read. */
  good(): void {
    this.completeSingles();
    this.waysBytes = () => {
      const block = goodBytes(BLOCK_BYTES, 80, this.position);
      this.position += BLOCK_BYTES;
      for (let at = 0; at < BLOCK_BYTES; at += REQUEST_BYTES)
        this.given.add(block.toString('latin1', at, at + REQUEST_BYTES));
      return block;
    };
  }

  /** After single bytes: what is given next begins at a multiple of a request again. */
  private completeSingles(): void {
    const end = Math.ceil(this.singlesGiven / REQUEST_BYTES) * REQUEST_BYTES;
    if (end > this.singlesGiven) this.fifo.write(this.singles.subarray(this.singlesGiven, end));
    this.singlesGiven = end;
  }

  jam(): void {
    this.waysBytes = () => Buffer.alloc(BLOCK_BYTES, JAM);
  }

  /** A good byte a second. */
  trickle(): void {
    let dueMs = 0;
    this.waysBytes = () => {
      if (performance.now() < dueMs) return Buffer.alloc(0);
      dueMs = performance.now() + 1000;
      return this.singles.subarray(this.singlesGiven, ++this.singlesGiven);
    };
  }

  silent(): void {
    this.waysBytes = () => Buffer.alloc(0);
  }

  private feed(): void {
    const bytes = this.waysBytes();
    try {
      // At most 4 096 bytes, so all of them or none.
      if (bytes.length > 0) this.fifo.write(bytes);
    } catch (error) {
      if (!String(error).includes('EAGAIN')) throw error;
    }
  }
}

/** A guest that reads /dev/hwrng all the time. */
class Reader {
  readonly parts: Buffer[] = [];
  longestMs = 0;
  private readonly guest: Guest;
  private stopped = false;
  private readonly done: Promise<void>;
  private failure: unknown;

  constructor(guest: Guest) {
    this.guest = guest;
    this.done = this.run().catch((error: unknown) => {
      this.failure = error;
    });
  }

  private async run(): Promise<void> {
    while (!this.stopped) {
      const sinceMs = performance.now();
      this.parts.push(await this.guest.readHwrng(READ_BYTES, READ_TIMEOUT_MS));
      this.longestMs = Math.max(this.longestMs, performance.now() - sinceMs);
    }
  }

  /** What is read from now on until there is enough of it for a phase; throws when a read has failed. */
  async phase(): Promise<Buffer> {
    const from = this.parts.length;
    const endMs = performance.now() + PHASE_MS;
    while (performance.now() < endMs || (this.parts.length - from) * READ_BYTES < PHASE_BYTES) {
      if (this.failure !== undefined)
        throw new Error('a read in the guest has failed', { cause: this.failure });
      await setTimeout(50);
    }
    return Buffer.concat(this.parts.slice(from));
  }

  async stop(): Promise<Buffer> {
    this.stopped = true;
    await this.done;
    if (this.failure !== undefined)
      throw new Error('a read in the guest has failed', { cause: this.failure });
    return Buffer.concat(this.parts);
  }
}

await endToEnd(t, async (scene) => {
  const fifo = makeFifo(t);
  const feeder = new Feeder(t, fifo);
  feeder.good();
  const socketPath = scene.socketPath('rng');
  const daemon = await scene.startDaemon(
    `--socket-path=${socketPath}`,
    ...['--allow-test-sources', `--source=file:${fifo.path}`, '--source=getrandom'],
  );
  const reader = new Reader(await scene.bootGuest(socketPath));

  /** How many requests' bytes of those that a guest has read are the first source's. */
  const ofFirst = (bytes: Buffer): number => {
    let count = 0;
    for (let at = 0; at + REQUEST_BYTES <= bytes.length; at += REQUEST_BYTES)
      if (feeder.given.has(bytes.toString('latin1', at, at + REQUEST_BYTES))) count++;
    return count;
  };
  const wholeServedBy = async (t: Test, which: 'first' | 'second') => {
    // What waited of the other one is read first.
    await reader.phase();
    const bytes = await reader.phase();
    t.equal(ofFirst(bytes), which === 'first' ? bytes.length / REQUEST_BYTES : 0, 'requests of the first');
  };
  const logged = (from: number, ...patterns: readonly RegExp[]) =>
    Promise.all(patterns.map((pattern) => daemon.waitForLog(pattern, LOG_MS, from)));
  const TO_SECOND = /getrandom serves now in the place of file:\S+ \[source_switch\]/;
  const TO_FIRST = /file:\S+ serves now in the place of getrandom \[source_switch\]/;
  const BACK = /file:\S+ delivers again: .*\[source_back\]/;

  await t.test('the first source serves', async (t) => {
    await wholeServedBy(t, 'first');
  });

  await t.test('it is pulled: the second serves; it is back: it serves', async (t) => {
    const from = daemon.log.length;
    feeder.silent();
    fifo.unplug();
    await logged(from, /file:\S+ failed: it has come to its end; trying again \[source_failed\]/, TO_SECOND);
    await wholeServedBy(t, 'second');
    const back = daemon.log.length;
    fifo.plug();
    feeder.good();
    await logged(back, BACK, TO_FIRST);
    await wholeServedBy(t, 'first');
  });

  await t.test('it jams: the second serves until the device was replaced and SIGHUP has come', async (t) => {
    const from = daemon.log.length;
    feeder.jam();
    await logged(from, /file:\S+ failed: it failed a health test: .*SIGHUP\) \[source_failed\]/, TO_SECOND);
    await wholeServedBy(t, 'second');
    const back = daemon.log.length;
    feeder.silent();
    replace(fifo);
    feeder.good();
    process.kill(daemon.pid, 'SIGHUP');
    await logged(back, /enabled again \(SIGHUP\): file:\S+ \[sources_enabled\]/, BACK, TO_FIRST);
    await wholeServedBy(t, 'first');
  });

  await t.test('it gives a byte a second: the second serves; it is fast again: it serves', async (t) => {
    const from = daemon.log.length;
    feeder.trickle();
    await logged(from, /file:\S+ is slow: .*\[source_slow\]/, TO_SECOND);
    await wholeServedBy(t, 'second');
    const back = daemon.log.length;
    feeder.good();
    await logged(back, BACK, TO_FIRST);
    await wholeServedBy(t, 'first');
  });

  await t.test('no read has failed, nothing of the jam was read, and nothing twice', async (t) => {
    const bytes = await reader.stop();
    t.comment(
      `${bytes.length} bytes, the longest read of ${READ_BYTES} took ${reader.longestMs.toFixed(0)} ms`,
    );
    t.notOk(bytes.includes(Buffer.alloc(8, JAM)), 'no jam');
    const requests = Array.from({ length: bytes.length / REQUEST_BYTES }, (_, i) =>
      bytes.toString('latin1', i * REQUEST_BYTES, (i + 1) * REQUEST_BYTES),
    );
    t.equal(new Set(requests).size, requests.length, 'every request got other bytes');
    t.match(await daemon.stop(), { code: 0 });
  });
});
