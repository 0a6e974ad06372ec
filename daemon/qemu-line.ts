// What connects a QEMU guest to a device of this daemon: options for a shell, or elements for libvirt's XML.

const CHARDEV = 'vhost-rngd';

/** The two options of the device; QEMU takes a comma in a value twice. */
function deviceOptions(socketPath: string): { readonly chardev: string; readonly device: string } {
  return {
    chardev: `socket,id=${CHARDEV},path=${socketPath.replaceAll(',', ',,')}`,
    device: `vhost-user-rng-pci,chardev=${CHARDEV},vectors=2`,
  };
}

/** Options to paste, for a guest of 1 GiB; a backslash joins the lines in a shell. */
export function qemuLine(socketPath: string): string {
  const { chardev, device } = deviceOptions(socketPath);
  return [
    'qemu-system-x86_64 -m 1G \\',
    '  -object memory-backend-memfd,id=mem,size=1G,share=on -machine q35,memory-backend=mem \\',
    `  -chardev ${shellWord(chardev)} -device ${device}`,
  ].join('\n');
}

/** Elements to paste into a domain of libvirt, which has no element for a vhost-user entropy device of its own. */
export function libvirtXml(socketPath: string): string {
  const { chardev, device } = deviceOptions(socketPath);
  return [
    "<!-- in <domain>, whose first line must name this namespace too: xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' -->",
    '<memoryBacking>',
    "  <source type='memfd'/>",
    "  <access mode='shared'/>",
    '</memoryBacking>',
    '<qemu:commandline>',
    ...['-chardev', chardev, '-device', device].map((value) => `  <qemu:arg value='${xmlText(value)}'/>`),
    '</qemu:commandline>',
  ].join('\n');
}

function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

const XML_ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  "'": '&apos;',
};

function xmlText(text: string): string {
  return text.replace(/[&<>']/g, (c) => XML_ESCAPES[c] ?? c);
}
