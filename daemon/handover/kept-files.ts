// The open files that a process before has kept, while this one takes its devices over: each front-end gets fds of its own of them,
// and what is then needed by nobody is let go.
import { Fault } from '../../protocol/fault.js';
import { errnoName } from '../../shared-memory/errno.js';
import { asFd, type Fd } from '../../shared-memory/fd.js';
import * as libc from '../../shared-memory/libc.js';
import type { PeerDisposal } from '../peer-disposal.js';
import type { FdVault } from './fd-vault.js';
import type { KeptNumber } from './kept-names.js';

/** The files by their number in the vault. Owns the fds. */
export class KeptFiles {
  private readonly files: ReadonlyMap<KeptNumber, Fd>;
  private readonly taken = new Set<KeptNumber>();

  /** `vault`: where they go on being kept; undefined: nothing is kept from now on. */
  constructor(files: readonly (readonly [KeptNumber, number])[], vault: FdVault | undefined) {
    this.files = new Map(files.map(([number, fd]) => [number, asFd(fd)]));
    for (const [number, fd] of this.files) vault?.adopt(number, fd);
  }

  /** An fd of the caller's own of a file. Throws a Fault when no fd is free. */
  take(number: KeptNumber): Fd {
    const fd = this.files.get(number);
    if (fd === undefined) throw new Error(`no open file of number ${number}`);
    const copy = libc.fcntl(fd, libc.F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
      throw new Fault(
        'connection',
        'fds_truncated',
        `no fd is free for what it needs: ${errnoName(copy)}; raise LimitNOFILE`,
      );
    this.taken.add(number);
    return asFd(copy);
  }

  /** Every front-end has what it needs: the rest is closed, as all that peers have passed; a connection that nobody has taken ends. */
  letGo(alone: () => PeerDisposal): void {
    for (const [number, fd] of this.files) {
      if (this.taken.has(number)) alone().closeFd(fd);
      else alone().endSocket(fd);
    }
  }
}
