// The QEMU options that connect a guest to a device of this daemon.

/** Options to paste, for a guest of 1 GiB; a backslash joins the lines in a shell. */
export function qemuLine(socketPath: string): string {
  return [
    'qemu-system-x86_64 -m 1G \\',
    '  -object memory-backend-memfd,id=mem,size=1G,share=on -machine q35,memory-backend=mem \\',
    `  -chardev socket,id=rng0,path=${socketPath} -device vhost-user-rng-pci,chardev=rng0,vectors=2`,
  ].join('\n');
}
