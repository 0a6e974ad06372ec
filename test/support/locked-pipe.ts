// A pipe whose lock is held for as long as a test likes, as a VMM can do it: by a read into a page that never comes, here
// one of userfaultfd(2), in a VMM one of its own FUSE server. Every write(2) to the pipe then waits, and no signal ends that.
import { closeFd, type Fd } from '../../shared-memory/fd.js';
import { NativeMemory, PreparedCall } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';
import { addToEventfd, openPipe } from './fd-kinds.js';

const PAGE_BYTES = 4096;
const UFFD_API = 0xaa;
const UFFDIO_API = 0xc018aa3f;
const UFFDIO_REGISTER = 0xc020aa00;
const UFFDIO_REGISTER_MODE_MISSING = 1;
/** Source: the kernel's system call tables; x86-64 and the generic one. */
const SYS_USERFAULTFD = process.arch === 'x64' ? 323 : 282;

const syscallCall = new PreparedCall('syscall', 'long', ['long', 'long']);
const ioctlCall = new PreparedCall('ioctl', 'int', ['int', 'long', 'pointer']);

/** A pipe that cannot be written to. */
export interface LockedPipe {
  /** The end to write to, for the caller to close. */
  readonly write: Fd;
  /** Lets the read go on, and with it all that waits for the lock. May be called again. */
  release(): Promise<void>;
}

/** Locks a new pipe; undefined where this user may not use userfaultfd(2). */
export function openLockedPipe(): LockedPipe | undefined {
  syscallCall.setWide(0, SYS_USERFAULTFD);
  syscallCall.setWide(1, libc.SOCK_CLOEXEC);
  const faults = syscallCall.call();
  if (faults < 0) return undefined;
  const api = new NativeMemory(24);
  api.setWide(0, UFFD_API);
  ioctl(faults, UFFDIO_API, api);
  const page = libc.mmap({
    length: PAGE_BYTES,
    protection: libc.PROT_READ | libc.PROT_WRITE,
    flags: libc.MAP_PRIVATE | libc.MAP_ANONYMOUS,
    fd: -1,
    offset: 0,
  });
  const range = new NativeMemory(32);
  range.setWide(0, page);
  range.setWide(8, PAGE_BYTES);
  range.setWide(16, UFFDIO_REGISTER_MODE_MISSING);
  ioctl(faults, UFFDIO_REGISTER, range);

  const [read, write] = openPipe();
  addToEventfd(write, 1);
  const call = new PreparedCall('read', 'long', ['int', 'pointer', 'size']);
  call.setInt(0, read);
  call.setWide(1, page);
  call.setWide(2, 8);
  const reading = call.callOnPool();
  // The lock is held once the fault is reported.
  if (libc.poll(faults, libc.POLLIN, 5000) <= 0) throw new Error('the page was not asked for');
  let held = true;
  return {
    write,
    release: async () => {
      if (!held) return;
      held = false;
      // Without its userfaultfd the page is an ordinary one.
      libc.close(faults);
      await reading;
      closeFd(read);
      libc.munmap(page, PAGE_BYTES);
    },
  };
}

function ioctl(fd: number, request: number, memory: NativeMemory): void {
  ioctlCall.setInt(0, fd);
  ioctlCall.setWide(1, request);
  ioctlCall.setWide(2, memory.address);
  if (ioctlCall.call() < 0) throw new Error(`ioctl 0x${request.toString(16)} of userfaultfd failed`);
}
