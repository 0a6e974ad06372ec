// The guest's root file system: busybox, the virtio modules, and an /init that loads them and then serves the test's
// commands on the second serial port. The first one stays the kernel's console, so no kernel message gets into an answer.
import { readFile } from 'node:fs/promises';
import { findBusybox } from './busybox.js';
import { type CpioEntry, encodeCpio, FILE_TYPE } from './cpio.js';
import type { Kernel } from './kernel.js';
import { type KernelModule, modulesInLoadingOrder } from './kernel-modules.js';

/** What /init writes to the command port when it takes commands. */
export const READY_LINE = 'vhost-rngd guest ready';

/** Where a guest finds its modules, as `/lib/modules/virtio_rng.ko`. */
const MODULE_FOLDER = '/lib/modules';

/**
 * Looks, 20 ms apart, for a module to be loaded. When a device answers nothing, virtio_rng's insmod may wait for ever: it
 * wants a mutex that the kernel's own reader, started just before, may hold. The guest must come up all the same.
 * Source: linux v6.1 drivers/char/hw_random/core.c, hwrng_register and hwrng_fillfn.
 */
const LOAD_TRIES = 100;

/** Gives the initramfs for `kernel` as a cpio archive; about 3 MB, made in milliseconds. */
export async function buildInitramfs(kernel: Kernel): Promise<Buffer> {
  const busybox = await findBusybox();
  const modules = await modulesInLoadingOrder(kernel, busybox);
  return encodeCpio([
    ...['bin', 'dev', 'lib', 'lib/modules', 'proc', 'sys', 'tmp'].map((name) => folder(name)),
    { name: 'dev/console', mode: FILE_TYPE.character | 0o600, device: [5, 1] },
    file('bin/busybox', await readFile(busybox)),
    ...modules.map((module) => file(`lib/modules/${module.name}.ko`, module.object)),
    file('init', Buffer.from(initScript(modules))),
  ]);
}

/**
 * A command line is `TOKEN COMMAND`; its answer is the command's output as raw bytes, a line feed, and `TOKEN STATUS`.
 *
 * The port is raw both ways: no echo, no line-feed translation, no flow-control bytes, so entropy passes as it is.
 */
function initScript(modules: readonly KernelModule[]): string {
  return `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in ${modules.map((module) => module.name).join(' ')}; do
  echo "init: loading $module"
  insmod ${MODULE_FOLDER}/$module.ko &
  for try in $(seq ${LOAD_TRIES}); do
    [ "$(cat /sys/module/$module/initstate 2>/dev/null)" = live ] && continue 2
    sleep 0.02
  done
  echo "init: $module is not live"
done
stty -F /dev/ttyS1 115200 raw -echo clocal
exec 3<>/dev/ttyS1
echo 'init: ready for commands'
echo '${READY_LINE}' >&3
while read -r token command <&3; do
  sh -c "$command" </dev/null >&3 2>&1 3>&-
  printf '\\n%s %s\\n' "$token" $? >&3
done
echo 'init: the command port closed'
poweroff -f
`;
}

function folder(name: string): CpioEntry {
  return { name, mode: FILE_TYPE.folder | 0o755 };
}

function file(name: string, data: Buffer): CpioEntry {
  return { name, mode: FILE_TYPE.file | 0o755, data };
}
