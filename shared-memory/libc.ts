// The system calls of the daemon, each bound once. Every function returns what the kernel returns: the result,
// or the error number negated. Constants are those of Linux's generic ABI (x86-64, arm64, riscv64).
import { constants } from 'node:os';
import { NativeMemory, PreparedCall, viewOf } from './ffi.js';

export const O_NONBLOCK = 0o4000;
export const F_DUPFD_CLOEXEC = 1030;
export const F_SETFD = 2;
export const FD_CLOEXEC = 1;
export const F_GETFL = 3;
export const F_SETFL = 4;
export const F_GET_SEALS = 1034;
export const F_SEAL_SHRINK = 0x0002;
export const AF_UNIX = 1;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SO_TYPE = 3;
export const SO_OOBINLINE = 10;
export const SO_LINGER = 13;
export const SO_PEERCRED = 17;
export const SO_ACCEPTCONN = 30;
export const SO_DOMAIN = 39;
export const SO_PEEK_OFF = 42;
export const SCM_RIGHTS = 1;
export const SHUT_RDWR = 2;
export const SIOCINQ = 0x541b;
export const SIOCOUTQ = 0x5411;
export const MSG_PEEK = 0x02;
export const MSG_CTRUNC = 0x08;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_CMSG_CLOEXEC = 0x40000000;
export const EFD_SEMAPHORE = 1;
export const EFD_CLOEXEC = 0o2000000;
export const EFD_NONBLOCK = 0o4000;
export const EPOLL_CLOEXEC = 0o2000000;
export const PROT_READ = 1;
export const PROT_WRITE = 2;
export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;
export const MADV_DONTDUMP = 16;
export const MADV_WIPEONFORK = 18;
export const GRND_NONBLOCK = 1;
export const MFD_CLOEXEC = 1;
export const MFD_ALLOW_SEALING = 2;
export const F_ADD_SEALS = 1033;
const AT_EMPTY_PATH = 0x1000;
const AT_STATX_DONT_SYNC = 0x4000;
const STATX_BASIC_STATS = 0x7ff;
export const SEEK_SET = 0;
export const SEEK_CUR = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;
export const POLLIN = 1;
export const POLLOUT = 4;
export const POLLERR = 8;

// errno is thread-local memory at a fixed address for the life of a thread, so it can be read without a call.
// SAFETY: the view covers the 4 bytes of this thread's errno, which outlive the thread's JavaScript.
const errnoBytes = viewOf(new PreparedCall('__errno_location', 'pointer', []).callForAddress(), 4);
const errnoWord = new Int32Array(errnoBytes.buffer, errnoBytes.byteOffset, 1);

/** Turns libc's -1 into the negated error number. Must follow the call at once. */
function result(value: number): number {
  return value === -1 ? -(errnoWord[0] ?? 0) : value;
}

const closeCall = new PreparedCall('close', 'int', ['int']);
export function close(fd: number): number {
  closeCall.setInt(0, fd);
  return result(closeCall.call());
}

const readCall = new PreparedCall('read', 'long', ['int', 'pointer', 'size']);
/** read(2). SAFETY: `address` must be writable for `length` bytes; a bad guest page gives EFAULT, not a signal. */
export function read(fd: number, address: number, length: number): number {
  readCall.setInt(0, fd);
  readCall.setWide(1, address);
  readCall.setWide(2, length);
  return result(readCall.call());
}

const writeCall = new PreparedCall('write', 'long', ['int', 'pointer', 'size']);
/** write(2). SAFETY: `address` must be readable for `length` bytes. */
export function write(fd: number, address: number, length: number): number {
  writeCall.setInt(0, fd);
  writeCall.setWide(1, address);
  writeCall.setWide(2, length);
  return result(writeCall.call());
}

const preadvCall = new PreparedCall('preadv2', 'long', ['int', 'pointer', 'int', 'long', 'int']);
const preadvSpan = new NativeMemory(16);
const CURRENT_POSITION = -1;
const RWF_NOWAIT = 8;
/** preadv2(2) that never waits, whatever others have made of the fd's flags. SAFETY: as {@link read}. */
export function readNoWait(fd: number, address: number, length: number): number {
  preadvSpan.setWide(0, address);
  preadvSpan.setWide(8, length);
  preadvCall.setInt(0, fd);
  preadvCall.setWide(1, preadvSpan.address);
  preadvCall.setInt(2, 1);
  preadvCall.setWide(3, CURRENT_POSITION);
  preadvCall.setInt(4, RWF_NOWAIT);
  return result(preadvCall.call());
}

const fcntlCall = new PreparedCall('fcntl', 'int', ['int', 'int', 'long']);
export function fcntl(fd: number, command: number, argument: number): number {
  fcntlCall.setInt(0, fd);
  fcntlCall.setInt(1, command);
  fcntlCall.setWide(2, argument);
  return result(fcntlCall.call());
}

const eventfdCall = new PreparedCall('eventfd', 'int', ['uint', 'int']);
export function eventfd(initial: number, flags: number): number {
  eventfdCall.setInt(0, initial);
  eventfdCall.setInt(1, flags);
  return result(eventfdCall.call());
}

const epollCreateCall = new PreparedCall('epoll_create1', 'int', ['int']);
export function epollCreate(flags: number): number {
  epollCreateCall.setInt(0, flags);
  return result(epollCreateCall.call());
}

const epollCtlCall = new PreparedCall('epoll_ctl', 'int', ['int', 'int', 'int', 'pointer']);
/**
 * A write(2) of the same bytes to one fd or another, whose other arguments are stored once.
 * SAFETY: the call keeps `bytes`.
 */
export function bindWrite(bytes: NativeMemory, length: number): (fd: number) => number {
  const call = new PreparedCall('write', 'long', ['int', 'pointer', 'size']);
  call.setMemory(1, bytes);
  call.setWide(2, length);
  return (fd) => {
    call.setInt(0, fd);
    return result(call.call());
  };
}

/** epoll_ctl(2). SAFETY: `event` points to a struct epoll_event. */
export function epollCtl(epfd: number, operation: number, fd: number, event: number): number {
  epollCtlCall.setInt(0, epfd);
  epollCtlCall.setInt(1, operation);
  epollCtlCall.setInt(2, fd);
  epollCtlCall.setWide(3, event);
  return result(epollCtlCall.call());
}

/**
 * epoll_wait(2) on one instance, whose arguments but the time-out are stored once.
 * SAFETY: `events` has room for `maxEvents` structs epoll_event, and the call keeps it.
 */
export function bindEpollWait(
  epfd: number,
  events: NativeMemory,
  maxEvents: number,
): (timeoutMs: number) => number {
  const call = new PreparedCall('epoll_wait', 'int', ['int', 'pointer', 'int', 'int']);
  call.setInt(0, epfd);
  call.setMemory(1, events);
  call.setInt(2, maxEvents);
  return (timeoutMs) => {
    call.setInt(3, timeoutMs);
    return result(call.call());
  };
}

const socketCall = new PreparedCall('socket', 'int', ['int', 'int', 'int']);
export function socket(domain: number, type: number): number {
  socketCall.setInt(0, domain);
  socketCall.setInt(1, type);
  socketCall.setInt(2, 0);
  return result(socketCall.call());
}

const bindCall = new PreparedCall('bind', 'int', ['int', 'pointer', 'uint']);
const connectCall = new PreparedCall('connect', 'int', ['int', 'pointer', 'uint']);
/** bind(2). SAFETY: `address` points to a sockaddr of `length` bytes. */
export function bind(fd: number, address: number, length: number): number {
  bindCall.setInt(0, fd);
  bindCall.setWide(1, address);
  bindCall.setInt(2, length);
  return result(bindCall.call());
}
/** connect(2). SAFETY: as {@link bind}. */
export function connect(fd: number, address: number, length: number): number {
  connectCall.setInt(0, fd);
  connectCall.setWide(1, address);
  connectCall.setInt(2, length);
  return result(connectCall.call());
}

const getsocknameCall = new PreparedCall('getsockname', 'int', ['int', 'pointer', 'pointer']);
const addressLength = new NativeMemory(4);
/** getsockname(2) into `address`: the length of the address, or a negated error number. */
export function getsockname(fd: number, address: NativeMemory): number {
  addressLength.words[0] = address.bytes.length;
  getsocknameCall.setInt(0, fd);
  getsocknameCall.setMemory(1, address);
  getsocknameCall.setMemory(2, addressLength);
  const returned = result(getsocknameCall.call());
  const [length = 0] = addressLength.words;
  return returned < 0 ? returned : length;
}

const listenCall = new PreparedCall('listen', 'int', ['int', 'int']);
export function listen(fd: number, backlog: number): number {
  listenCall.setInt(0, fd);
  listenCall.setInt(1, backlog);
  return result(listenCall.call());
}

const acceptCall = new PreparedCall('accept4', 'int', ['int', 'pointer', 'pointer', 'int']);
/** accept4(2) without the peer's address. */
export function accept(fd: number, flags: number): number {
  acceptCall.setInt(0, fd);
  acceptCall.setInt(3, flags);
  return result(acceptCall.call());
}

const recvmsgCall = new PreparedCall('recvmsg', 'long', ['int', 'pointer', 'int']);
const sendmsgCall = new PreparedCall('sendmsg', 'long', ['int', 'pointer', 'int']);
/** recvmsg(2). SAFETY: `header` points to a struct msghdr whose buffers are writable as it says. */
export function recvmsg(fd: number, header: number, flags: number): number {
  recvmsgCall.setInt(0, fd);
  recvmsgCall.setWide(1, header);
  recvmsgCall.setInt(2, flags);
  return result(recvmsgCall.call());
}
/** sendmsg(2). SAFETY: `header` points to a struct msghdr whose buffers are readable as it says. */
export function sendmsg(fd: number, header: number, flags: number): number {
  sendmsgCall.setInt(0, fd);
  sendmsgCall.setWide(1, header);
  sendmsgCall.setInt(2, flags);
  return result(sendmsgCall.call());
}

const getsockoptCall = new PreparedCall('getsockopt', 'int', ['int', 'int', 'int', 'pointer', 'pointer']);
const OPTION_LENGTH_OFFSET = 12;
const option = new NativeMemory(16);
/** getsockopt(2) at SOL_SOCKET for options of up to three ints, which it stores into `values`. */
export function getsockopt(fd: number, name: number, values: Int32Array): number {
  option.words[OPTION_LENGTH_OFFSET / 4] = values.length * 4;
  getsockoptCall.setInt(0, fd);
  getsockoptCall.setInt(1, SOL_SOCKET);
  getsockoptCall.setInt(2, name);
  getsockoptCall.setWide(3, option.address);
  getsockoptCall.setWide(4, option.address + OPTION_LENGTH_OFFSET);
  const returned = result(getsockoptCall.call());
  for (let i = 0; i < values.length; i++) values[i] = option.words[i] ?? 0;
  return returned;
}

const setsockoptCall = new PreparedCall('setsockopt', 'int', ['int', 'int', 'int', 'pointer', 'uint']);
/** setsockopt(2) at SOL_SOCKET with all bytes of the option's value 0: switched off. `length` at most 12. */
export function clearSocketOption(fd: number, name: number, length: number): number {
  return setSocketOption(fd, name, 0, length);
}

/** setsockopt(2) at SOL_SOCKET with an int, followed by zeros up to `length` bytes, at most 12. */
export function setSocketOption(fd: number, name: number, value: number, length = 4): number {
  option.bytes.fill(0);
  option.words[0] = value;
  setsockoptCall.setInt(0, fd);
  setsockoptCall.setInt(1, SOL_SOCKET);
  setsockoptCall.setInt(2, name);
  setsockoptCall.setWide(3, option.address);
  setsockoptCall.setInt(4, length);
  return result(setsockoptCall.call());
}

const shutdownCall = new PreparedCall('shutdown', 'int', ['int', 'int']);
export function shutdown(fd: number, how: number): number {
  shutdownCall.setInt(0, fd);
  shutdownCall.setInt(1, how);
  return result(shutdownCall.call());
}

const ioctlCall = new PreparedCall('ioctl', 'int', ['int', 'long', 'pointer']);
const ioctlAnswer = new NativeMemory(8);
/** ioctl(2) of a request that stores an int: that int, or a negated error number. */
export function ioctlForInt(fd: number, request: number): number {
  ioctlCall.setInt(0, fd);
  ioctlCall.setWide(1, request);
  ioctlCall.setWide(2, ioctlAnswer.address);
  const returned = result(ioctlCall.call());
  return returned < 0 ? returned : (ioctlAnswer.words[0] ?? 0);
}

const memfdCreateCall = new PreparedCall('memfd_create', 'int', ['pointer', 'uint']);
const MEMFD_NAME_BYTES = 32;
const memfdName = new NativeMemory(MEMFD_NAME_BYTES);
/** memfd_create(2). The name is for /proc/PID/maps, at most 31 bytes. */
export function memfdCreate(name: string, flags: number): number {
  memfdName.bytes.fill(0);
  memfdName.bytes.write(name, 0, MEMFD_NAME_BYTES - 1, 'latin1');
  memfdCreateCall.setWide(0, memfdName.address);
  memfdCreateCall.setInt(1, flags);
  return result(memfdCreateCall.call());
}

const mmapCall = new PreparedCall('mmap', 'pointer', ['pointer', 'size', 'int', 'int', 'int', 'long']);
/** What mmap(2) is asked for; the kernel chooses the address. Offset and length in bytes, page-aligned. */
export interface MmapRequest {
  readonly length: number;
  readonly protection: number;
  readonly flags: number;
  readonly fd: number;
  readonly offset: number;
}
/** mmap(2): an address, or a negated error number. */
export function mmap(request: MmapRequest): number {
  mmapCall.setWide(0, 0);
  mmapCall.setWide(1, request.length);
  mmapCall.setInt(2, request.protection);
  mmapCall.setInt(3, request.flags);
  mmapCall.setInt(4, request.fd);
  mmapCall.setWide(5, request.offset);
  return result(mmapCall.callForAddress());
}

const munmapCall = new PreparedCall('munmap', 'int', ['pointer', 'size']);
/** munmap(2). SAFETY: no view of these bytes may be used afterwards. */
export function munmap(address: number, length: number): number {
  munmapCall.setWide(0, address);
  munmapCall.setWide(1, length);
  return result(munmapCall.call());
}

const madviseCall = new PreparedCall('madvise', 'int', ['pointer', 'size', 'int']);
export function madvise(address: number, length: number, advice: number): number {
  madviseCall.setWide(0, address);
  madviseCall.setWide(1, length);
  madviseCall.setInt(2, advice);
  return result(madviseCall.call());
}

const mlockCall = new PreparedCall('mlock', 'int', ['pointer', 'size']);
export function mlock(address: number, length: number): number {
  mlockCall.setWide(0, address);
  mlockCall.setWide(1, length);
  return result(mlockCall.call());
}

const statxCall = new PreparedCall('statx', 'int', ['int', 'pointer', 'int', 'uint', 'pointer']);
const emptyPath = new NativeMemory(4);
/**
 * statx(2) of an fd, from what the kernel has cached: unlike fstat(2) it never asks a file server, so it never waits.
 * SAFETY: `buffer` has room for a struct statx, 256 bytes.
 */
export function statxCached(fd: number, buffer: number): number {
  statxCall.setInt(0, fd);
  statxCall.setWide(1, emptyPath.address);
  statxCall.setInt(2, AT_EMPTY_PATH | AT_STATX_DONT_SYNC);
  statxCall.setInt(3, STATX_BASIC_STATS);
  statxCall.setWide(4, buffer);
  return result(statxCall.call());
}

const memcpyCall = new PreparedCall('memcpy', 'pointer', ['pointer', 'pointer', 'size']);
/** memcpy(3). SAFETY: both ranges are mapped for as long as the call runs and do not overlap. */
export function memcpy(to: number, from: number, length: number): void {
  memcpyCall.setWide(0, to);
  memcpyCall.setWide(1, from);
  memcpyCall.setWide(2, length);
  memcpyCall.call();
}

const getrandomCall = new PreparedCall('getrandom', 'long', ['pointer', 'size', 'uint']);
/** getrandom(2). SAFETY: as {@link read}. */
export function getrandom(address: number, length: number, flags: number): number {
  getrandomCall.setWide(0, address);
  getrandomCall.setWide(1, length);
  getrandomCall.setInt(2, flags);
  return result(getrandomCall.call());
}

const IOVEC_BYTES = 16;
/** Binds process_vm_readv or process_vm_writev on this very process, one span a call. */
function bindVmCopy(symbol: 'process_vm_readv' | 'process_vm_writev') {
  const call = new PreparedCall(symbol, 'long', ['int', 'pointer', 'size', 'pointer', 'size', 'size']);
  const iovecs = new NativeMemory(2 * IOVEC_BYTES);
  call.setInt(0, process.pid);
  call.setWide(1, iovecs.address);
  call.setWide(2, 1);
  call.setWide(3, iovecs.address + IOVEC_BYTES);
  call.setWide(4, 1);
  return (ownAddress: number, guardedAddress: number, length: number): number => {
    iovecs.setWide(0, ownAddress);
    iovecs.setWide(8, length);
    iovecs.setWide(IOVEC_BYTES, guardedAddress);
    iovecs.setWide(IOVEC_BYTES + 8, length);
    return result(call.call());
  };
}
/**
 * Copies out of memory that may vanish: bytes copied, or EFAULT where a plain load would be a fatal SIGBUS.
 * SAFETY: `ownAddress` is memory of ours, valid for `length` bytes; the guarded range may be anything.
 */
export const guardedRead = bindVmCopy('process_vm_readv');
/** Copies into memory that may vanish; as {@link guardedRead}. */
export const guardedWrite = bindVmCopy('process_vm_writev');

const lseekCall = new PreparedCall('lseek', 'long', ['int', 'long', 'int']);
export function lseek(fd: number, offset: number, whence: number): number {
  lseekCall.setInt(0, fd);
  lseekCall.setWide(1, offset);
  lseekCall.setInt(2, whence);
  return result(lseekCall.call());
}

const sendfileCall = new PreparedCall('sendfile', 'long', ['int', 'int', 'pointer', 'size']);
/** sendfile(2) from where `from` stands, which it moves. */
export function sendfile(to: number, from: number, count: number): number {
  sendfileCall.setInt(0, to);
  sendfileCall.setInt(1, from);
  sendfileCall.setWide(2, 0);
  sendfileCall.setWide(3, count);
  return result(sendfileCall.call());
}

const flockCall = new PreparedCall('flock', 'int', ['int', 'int']);
/** flock(2): the lock ends with the last fd of this open file, and so with the process at the latest. */
export function flock(fd: number, operation: number): number {
  flockCall.setInt(0, fd);
  flockCall.setInt(1, operation);
  return result(flockCall.call());
}

const pollCall = new PreparedCall('poll', 'int', ['pointer', 'size', 'int']);
const pollRequest = new NativeMemory(8);
/** poll(2) of one fd: the events that came within `timeoutMs` (0: look only), or 0, or a negated error number. */
export function poll(fd: number, events: number, timeoutMs: number): number {
  pollRequest.words[0] = fd;
  pollRequest.words[1] = events;
  pollCall.setWide(0, pollRequest.address);
  pollCall.setWide(1, 1);
  pollCall.setInt(2, timeoutMs);
  const ready = result(pollCall.call());
  return ready > 0 ? pollRequest.words[1] >> 16 : ready;
}

const KCMP_FILE = 0;
/** System call numbers: there is no wrapper in libc. Source: Linux, the tables of system calls. */
const KCMP_NUMBERS: Readonly<Record<string, number>> = { x64: 312, arm64: 272, riscv64: 272, loong64: 272 };
const kcmpCall = new PreparedCall('syscall', 'long', ['long', 'int', 'int', 'int', 'long', 'long']);

/**
 * Whether two fds of this process stand for the same open file: 0 when they do, 1 and 2 for an order of those that do not,
 * which holds as long as both are open; or a negated error number. Source: kcmp(2).
 */
export function compareFiles(one: number, other: number): number {
  const number = KCMP_NUMBERS[process.arch];
  if (number === undefined) return -constants.errno.ENOSYS;
  kcmpCall.setWide(0, number);
  kcmpCall.setInt(1, process.pid);
  kcmpCall.setInt(2, process.pid);
  kcmpCall.setInt(3, KCMP_FILE);
  kcmpCall.setWide(4, one);
  kcmpCall.setWide(5, other);
  return result(kcmpCall.call());
}
