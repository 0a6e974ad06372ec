// The fds that outlive the process: everything that a running device needs and that only its VMM could pass again.
//
// Each open file is kept once, under a number of its own, however many fds stand for it: a VMM passes the same memory for
// each of its devices and at each start of a driver, and the service manager drops what it has already, whatever its name.
// Source: sd_notify(3), FDSTORE=1; kcmp(2).
import { type Fd } from '../../shared-memory/fd.js';
import { compareFiles } from '../../shared-memory/libc.js';
import { fileName, type KeptNumber } from './kept-names.js';

/** Where fds are kept beyond the process, by name. No call waits. */
export interface FdStore {
  keep(name: string, fd: Fd): void;
  forget(name: string): void;
}

/**
 * The kept fds of one data-plane thread. A record that names a number is written after keep() and before flush(), so that
 * every record names what is there; and no other front-end's fd comes between a release() and its flush(), or the store, which
 * still has the old one, would take nothing new and then forget both.
 */
export class FdVault {
  private readonly store: FdStore;
  private readonly byFd = new Map<Fd, Entry>();
  /** In the kernel's order of open files. */
  private readonly ordered: Entry[] = [];
  private next: KeptNumber = 1;
  /** Numbers that nothing stands for any more; still kept, until {@link flush}. */
  private readonly departing: KeptNumber[] = [];

  constructor(store: FdStore) {
    this.store = store;
  }

  /** Keeps the open file that `fd` stands for (borrowed, until {@link release}), unless it is kept; gives its number. */
  keep(fd: Fd): KeptNumber {
    const known = this.byFd.get(fd);
    if (known !== undefined) return known.number;
    const at = this.find(fd);
    const same = this.ordered[at.place];
    if (at.found && same !== undefined) {
      same.fds.push(fd);
      this.byFd.set(fd, same);
      return same.number;
    }
    const entry = { number: this.next++, fds: [fd] };
    this.insert(entry, at.place);
    this.store.keep(fileName(entry.number), fd);
    return entry.number;
  }

  /** Takes over what a process before has kept: the store has `fd` (borrowed as by {@link keep}) under this number. */
  adopt(number: KeptNumber, fd: Fd): void {
    this.next = Math.max(this.next, number + 1);
    this.insert({ number, fds: [fd] }, this.find(fd).place);
  }

  /** The owner of `fd` lets it go. What nothing stands for any more is forgotten at the next {@link flush}. */
  release(fd: Fd): void {
    const entry = this.byFd.get(fd);
    if (entry === undefined) return;
    this.byFd.delete(fd);
    entry.fds.splice(entry.fds.indexOf(fd), 1);
    if (entry.fds.length > 0) return;
    this.ordered.splice(this.ordered.indexOf(entry), 1);
    this.departing.push(entry.number);
  }

  /** Forgets what was released: no record names it any more. */
  flush(): void {
    for (const number of this.departing) this.store.forget(fileName(number));
    this.departing.length = 0;
  }

  private insert(entry: Entry, place: number): void {
    this.ordered.splice(place, 0, entry);
    for (const fd of entry.fds) this.byFd.set(fd, entry);
  }

  /** Where the open file of `fd` is, or belongs. */
  private find(fd: Fd): { readonly found: boolean; readonly place: number } {
    let from = 0;
    let to = this.ordered.length;
    while (from < to) {
      const middle = (from + to) >> 1;
      const [known] = this.ordered[middle]?.fds ?? [];
      const order = known === undefined ? 0 : compareFiles(fd, known);
      if (order === 0) return { found: true, place: middle };
      if (order === LESS) to = middle;
      else from = middle + 1;
    }
    return { found: false, place: from };
  }
}

/** What kcmp(2) gives when the first is less. */
const LESS = 1;

interface Entry {
  readonly number: KeptNumber;
  /** All of this process that stand for the open file; at least one. */
  readonly fds: Fd[];
}
