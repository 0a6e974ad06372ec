// Fds that are watched very often, as a VMM can do it: each write(2) to an eventfd, and each message to a socket, wakes every
// watcher before it returns.
import { openEventfd } from '../../shared-memory/eventfd.js';
import { EPOLLET, EPOLLIN } from '../../shared-memory/epoll.js';
import { asFd, closeFd, type Fd } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';

const EPOLL_CTL_ADD = 1;
/** One epoll instance watches a file once for each number that it has. */
const NUMBERS = 1000;

/** Opens one with `instances` * 1000 watches. Whoever opens it calls close(). */
export function openWatchedEventfd(instances: number): { readonly fd: Fd; close(): void } {
  const fd = openEventfd();
  const unwatch = watchOften(fd, instances);
  return {
    fd,
    close: () => {
      unwatch();
      closeFd(fd);
    },
  };
}

/** Watches what `fd` stands for, `instances` * 1000 times; gives what ends it. */
export function watchOften(fd: Fd, instances: number): () => void {
  const copies = Array.from({ length: NUMBERS }, () => libc.fcntl(fd, libc.F_DUPFD_CLOEXEC, 0));
  const event = new NativeMemory(16);
  event.words[0] = EPOLLIN | EPOLLET;
  const watchers = Array.from({ length: instances }, () => {
    const watcher = libc.epollCreate(libc.EPOLL_CLOEXEC);
    for (const copy of copies) {
      const added = libc.epollCtl(watcher, EPOLL_CTL_ADD, copy, event.address);
      if (added < 0) throw new Error(`epoll_ctl: ${added} (see fs.epoll.max_user_watches)`);
    }
    return watcher;
  });
  return () => [...watchers, ...copies].map(asFd).forEach(closeFd);
}
