// All that a guest reads from /dev/hwrng without a pause of its own, with the times at which it came: how long a guest waits, as it sees it.
import type { Guest } from './guest.js';

const BLOCK_BYTES = 16;
/** What the guest asks for at a time, as the Linux driver does. */
const READ_BYTES = 64;

/** A guest that reads for as long as it runs. */
export class HwrngStream {
  private readonly pieces: Buffer[] = [];
  private lastMs = performance.now();
  private longestMs = 0;
  private waiting: (() => void) | undefined;
  bytes = 0;

  constructor(guest: Guest) {
    guest.stream(`exec dd if=/dev/hwrng bs=${READ_BYTES} 2>/dev/null`, (piece) => this.take(piece));
  }

  private take(piece: Buffer): void {
    const nowMs = performance.now();
    this.longestMs = Math.max(this.longestMs, nowMs - this.lastMs);
    this.lastMs = nowMs;
    this.pieces.push(piece);
    this.bytes += piece.length;
    this.waiting?.();
  }

  /** Forgets the gaps so far. */
  beginMeasuring(): void {
    this.longestMs = 0;
  }

  /** The longest time without a byte since {@link beginMeasuring}, one that lasts included. */
  get longestGapMs(): number {
    return Math.max(this.longestMs, performance.now() - this.lastMs);
  }

  /** Resolves once `bytes` more have come; rejects when nothing comes for `patienceMs`: the guest hangs. */
  async more(bytes: number, patienceMs: number): Promise<void> {
    const wanted = this.bytes + bytes;
    await new Promise<void>((resolve, reject) => {
      const hang = (): void => {
        if (performance.now() - this.lastMs < patienceMs) return;
        clearInterval(looks);
        this.waiting = undefined;
        reject(
          new Error(`the guest hangs: it has read nothing for ${patienceMs} ms, after ${this.bytes} bytes`),
        );
      };
      const looks = setInterval(hang, patienceMs / 10);
      this.waiting = () => {
        if (this.bytes < wanted) return;
        clearInterval(looks);
        this.waiting = undefined;
        resolve();
      };
    });
  }

  /** How many blocks of 16 bytes came more than once; a block is told from another by its first 8. */
  repeatedBlocks(): number {
    const all = Buffer.concat(this.pieces);
    const blocks = new BigUint64Array(Math.floor(all.length / BLOCK_BYTES));
    for (let i = 0; i < blocks.length; i++) blocks[i] = all.readBigUInt64LE(BLOCK_BYTES * i);
    blocks.sort();
    let repeated = 0;
    for (let i = 1; i < blocks.length; i++) if (blocks[i] === blocks[i - 1]) repeated++;
    return repeated;
  }
}
