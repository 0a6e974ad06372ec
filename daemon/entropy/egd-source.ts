// An EGD server as a raw source: the client's replies, in locked memory until they are read and tested.
//
// The client makes lost connections again by itself, in its own rhythm; here a lost one is a failure, so that another
// source serves meanwhile, and the new connection is what opening waits for.
import { Errno } from '../../shared-memory/errno.js';
import * as libc from '../../shared-memory/libc.js';
import { Mapping, PAGE_BYTES } from '../../shared-memory/mapping.js';
import type { EgdAddress } from './egd-address.js';
import { EgdClient } from './egd-client.js';
import type { RawSource } from './source.js';

/** What an EGD server sends, for a thread whose event loop turns. */
export class EgdSource implements RawSource {
  readonly receives = true;
  failure: string | undefined;
  private readonly address: EgdAddress;
  private readonly onNews: () => void;
  private readonly mapping = Mapping.forSecrets(PAGE_BYTES).mapping;
  private readonly bytes = this.mapping.view(0, PAGE_BYTES);
  private client: EgdClient | undefined;
  /** Bytes that have arrived, from the front of the page on; and those that the client is still to bring. */
  private arrived = 0;
  private asked = 0;

  /** `onNews` is called when bytes have arrived, and when there is a connection again or none any more. */
  constructor(address: EgdAddress, onNews: () => void) {
    this.address = address;
    this.onNews = onNews;
  }

  open(): string | undefined {
    this.client ??= new EgdClient(this.address, {
      bytes: (chunk) => this.take(chunk),
      empty: () => undefined,
      connected: () => this.tell(undefined),
      failed: (reason) => this.tell(reason),
    });
    return this.failure;
  }

  private take(chunk: Uint8Array): void {
    this.bytes.set(chunk, this.arrived);
    this.arrived += chunk.length;
    this.asked -= chunk.length;
    this.onNews();
  }

  private tell(failure: string | undefined): void {
    this.failure = failure;
    this.onNews();
  }

  read(address: number, length: number): number {
    if (this.failure !== undefined) return -Errno.EIO;
    const count = Math.min(this.arrived, length);
    // SAFETY: `count` bytes lie at the front of the page, and `length` bytes of the caller's at `address`.
    if (count > 0) libc.memcpy(address, this.mapping.address, count);
    this.bytes.copyWithin(0, count, this.arrived);
    this.bytes.fill(0, this.arrived - count, this.arrived);
    this.arrived -= count;
    const missing = Math.min(length, PAGE_BYTES) - count - this.arrived - this.asked;
    if (missing > 0) {
      this.asked += missing;
      this.client?.want(missing);
    }
    return count;
  }

  letGo(): void {
    this.bytes.fill(0);
    this.arrived = 0;
  }

  close(): void {
    this.client?.close();
    this.letGo();
    this.mapping.unmap();
  }
}
