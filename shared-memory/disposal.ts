// Letting go of what a peer has passed. close(2) and munmap(2) of a peer's files may take arbitrarily long: the last
// holder frees every page of a guest (0.4 s a GiB), a TCP socket may linger, a FUSE file asks its server, and an eventfd
// forgets whoever watches it (0.3 s a million). So the data plane never does it itself: it hands addresses and fds to
// whoever implements this.
import type { Fd } from './fd.js';

/** Where fds and mappings that came from a peer go in the end. No call waits. */
export interface Disposal {
  /** Closes `fd` soon; the caller has stopped using it. */
  closeFd(fd: Fd): void;
  /** Unmaps soon; the caller has dropped every view. */
  unmap(address: number, length: number): void;
}
