// A thread whose whole program is one function of libc with one argument: for a call that may wait for ever and that no
// thread of node's may be lost to. It runs no JavaScript and costs a stack. Source: pthread_create(3).
import { NativeMemory, PreparedCall, symbolAddress } from './ffi.js';

const createCall = new PreparedCall('pthread_create', 'int', ['pointer', 'pointer', 'pointer', 'pointer']);
const joinCall = new PreparedCall('pthread_tryjoin_np', 'int', ['pointer', 'pointer']);
const killCall = new PreparedCall('pthread_kill', 'int', ['pointer', 'int']);
const handle = new NativeMemory(8);

const PROGRAMS = {
  /** The argument is an fd. */
  close: symbolAddress('close'),
  /** Writes what is buffered, then closes. The argument is a FILE. */
  fclose: symbolAddress('fclose'),
} as const;

/** A thread that was started; whoever starts it asks until it has ended. */
export class NativeThread {
  private readonly low: number;
  private readonly high: number;
  private ended = false;

  private constructor(low: number, high: number) {
    this.low = low;
    this.high = high;
  }

  /** Starts `program` with `argument`; undefined when the kernel gives no thread now. */
  static start(program: keyof typeof PROGRAMS, argument: number): NativeThread | undefined {
    createCall.setWide(0, handle.address);
    createCall.setWide(1, 0);
    createCall.setWide(2, PROGRAMS[program]);
    createCall.setWide(3, argument);
    // SAFETY: one integer or pointer comes in the register of the first argument in each Linux ABI; the result is not used.
    if (createCall.call() !== 0) return undefined;
    return new NativeThread((handle.words[0] ?? 0) >>> 0, handle.words[1] ?? 0);
  }

  /** True once the function has returned. */
  hasEnded(): boolean {
    if (this.ended) return true;
    joinCall.setWide(0, this.id);
    joinCall.setWide(1, 0);
    // SAFETY: the thread was not joined before.
    this.ended = joinCall.call() === 0;
    return this.ended;
  }

  /** Interrupts a system call that it waits in, with a signal that does nothing else. */
  interrupt(signal: number): void {
    if (this.hasEnded()) return;
    killCall.setWide(0, this.id);
    killCall.setInt(1, signal);
    // SAFETY: the thread was not joined, so its id is still its own.
    killCall.call();
  }

  private get id(): number {
    return this.high * 2 ** 32 + this.low;
  }
}

const fdopenCall = new PreparedCall('fdopen', 'pointer', ['int', 'pointer']);
const fwriteCall = new PreparedCall('fwrite', 'size', ['pointer', 'size', 'size', 'pointer']);
const writeMode = new NativeMemory(4);
writeMode.bytes.write('w\0', 'latin1');
const one = new NativeMemory(8);
one.setWide(0, 1);

/** A FILE over `fd` (adopted) in which a signal waits to be written when it is closed; undefined without memory. */
export function fileWithSignal(fd: number): number | undefined {
  fdopenCall.setInt(0, fd);
  fdopenCall.setWide(1, writeMode.address);
  const file = fdopenCall.callForAddress();
  if (file === 0) return undefined;
  fwriteCall.setWide(0, one.address);
  fwriteCall.setWide(1, 1);
  fwriteCall.setWide(2, one.bytes.length);
  fwriteCall.setWide(3, file);
  // SAFETY: eight bytes fit the buffer of a FILE, so nothing is written yet.
  fwriteCall.call();
  return file;
}
