// `--print-capabilities`: what management software asks a vhost-user back-end program before it uses it.
// Source: vhost-user, "Backend program conventions", and QEMU's docs/interop/vhost-user.json.

/** The JSON document. The entropy device has no features of its own to list. */
export function capabilities(): string {
  return `${JSON.stringify({ type: 'rng', features: [] })}\n`;
}
