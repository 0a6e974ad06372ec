// The QEMU command line of a test guest: the README's line for one's own VM, with a kernel of ours and two serial ports.

/** The device that gives the guest its entropy: a daemon's socket, or QEMU's own for comparison. */
export type EntropyDevice =
  | { readonly kind: 'vhost-user'; readonly socketPath: string }
  | { readonly kind: 'builtin'; readonly maxBytes?: number; readonly periodMs?: number };

/**
 * How the guest's memory is backed: `shared` is what vhost-user needs; `private` has a file descriptor but the guest's
 * writes never reach it; `anonymous` has no file descriptor at all, which is QEMU's default.
 */
export type MemoryBackend = 'shared' | 'private' | 'anonymous';

export interface MachineOptions {
  readonly devices: readonly EntropyDevice[];
  /** Default 256. */
  readonly memoryMiB?: number;
  /** Default `shared`. */
  readonly memory?: MemoryBackend;
  readonly extraArguments?: readonly string[];
}

interface MachineFiles {
  readonly kernel: string;
  readonly initramfs: string;
  /** A socket that listens and takes QEMU's QMP connection. */
  readonly qmpSocket: string;
  /** A socket that listens and takes the guest's second serial port. */
  readonly commandSocket: string;
}

/** Gives all arguments of `qemu-system-x86_64`. */
export function qemuArguments(machine: MachineOptions, files: MachineFiles): readonly string[] {
  return [
    ...['-accel', 'tcg', '-nodefaults', '-no-user-config', '-display', 'none'],
    ...memoryArguments(machine.memoryMiB ?? 256, machine.memory ?? 'shared'),
    ...['-kernel', files.kernel, '-initrd', files.initramfs],
    // The guest is as fast as an emulator lets it: no CPU-bug mitigations, few messages.
    ...['-append', 'console=ttyS0 loglevel=4 mitigations=off rdinit=/init'],
    ...['-serial', 'stdio'],
    ...['-chardev', `socket,id=commands,path=${files.commandSocket}`, '-serial', 'chardev:commands'],
    ...['-chardev', `socket,id=qmp,path=${files.qmpSocket}`, '-mon', 'chardev=qmp,mode=control'],
    ...machine.devices.flatMap((device, index) => deviceArguments(device, index)),
    ...(machine.extraArguments ?? []),
  ];
}

function memoryArguments(memoryMiB: number, memory: MemoryBackend): readonly string[] {
  if (memory === 'anonymous') return ['-m', `${memoryMiB}`, '-machine', 'q35'];
  const share = memory === 'shared' ? 'on' : 'off';
  return [
    ...['-m', `${memoryMiB}`, '-object', `memory-backend-memfd,id=mem,size=${memoryMiB}M,share=${share}`],
    ...['-machine', 'q35,memory-backend=mem'],
  ];
}

function deviceArguments(device: EntropyDevice, index: number): readonly string[] {
  if (device.kind === 'vhost-user') {
    return [
      ...['-chardev', `socket,id=rng${index},path=${device.socketPath}`],
      ...['-device', `vhost-user-rng-pci,chardev=rng${index}`],
    ];
  }
  const limit =
    device.maxBytes === undefined ? '' : `,max-bytes=${device.maxBytes},period=${device.periodMs ?? 1000}`;
  return [
    ...['-object', `rng-random,id=source${index},filename=/dev/urandom`],
    ...['-device', `virtio-rng-pci,rng=source${index}${limit}`],
  ];
}
