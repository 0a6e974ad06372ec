// The EGD protocol as far as it is used here: command 0x01, "read what you have", and its replies.
//
//   request   0x01, count (1 to 255)          several may be in flight; they are answered in their order
//   reply     count (0 to what was asked), then so many bytes
//
// Command 0x02 has no length in its reply, and 0x03 writes into the server's pool: neither is ever sent. What arrives is
// never kept past the bytes that were asked for. Source: the protocol notes of egd.pl; bad-input rows 153 to 161.

export const MAX_REQUEST_BYTES = 255;
const COMMAND_READ = 0x01;

/** Requests and replies of one connection. */
export class EgdExchange {
  /** Where a reply is put together: {@link MAX_REQUEST_BYTES} bytes, wiped after each reply. */
  private readonly reply: Buffer;
  private readonly onReply: (bytes: Buffer) => void;
  /** What each request that is in flight has asked for, the oldest first. */
  private asked: number[] = [];
  /** Bytes of the current reply: promised by its count byte, which is still to come when undefined, and arrived. */
  private promised: number | undefined;
  private arrived = 0;

  /** `onReply` borrows the bytes of each whole reply, none when the server has none. */
  constructor(reply: Buffer, onReply: (bytes: Buffer) => void) {
    this.reply = reply;
    this.onReply = onReply;
  }

  get requestsInFlight(): number {
    return this.asked.length;
  }

  get bytesInFlight(): number {
    return this.asked.reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Notes one more request, for `bytes` but at most what a request can ask for, and gives what to send. */
  request(bytes: number): Uint8Array {
    const count = Math.min(bytes, MAX_REQUEST_BYTES);
    this.asked.push(count);
    return Uint8Array.of(COMMAND_READ, count);
  }

  /** Takes what has arrived; gives what is wrong with it, and then the connection is of no more use. */
  receive(chunk: Uint8Array): string | undefined {
    let at = 0;
    while (at < chunk.length) {
      if (this.promised === undefined) {
        const [oldest] = this.asked;
        const count = chunk[at++] ?? 0;
        if (oldest === undefined) return 'it sent bytes that nobody asked for';
        if (count > oldest) return `it promised ${count} bytes where ${oldest} were asked for`;
        this.promised = count;
      } else {
        const taken = Math.min(chunk.length - at, this.promised - this.arrived);
        this.reply.set(chunk.subarray(at, at + taken), this.arrived);
        this.arrived += taken;
        at += taken;
      }
      if (this.arrived === this.promised) this.finishReply(this.promised);
    }
    return undefined;
  }

  private finishReply(count: number): void {
    this.asked.shift();
    this.promised = undefined;
    this.arrived = 0;
    this.onReply(this.reply.subarray(0, count));
    this.reply.fill(0, 0, count);
  }

  /** Forgets the connection: what was in flight, and the fragment of a reply. */
  reset(): void {
    this.asked = [];
    this.promised = undefined;
    this.arrived = 0;
    this.reply.fill(0);
  }
}
