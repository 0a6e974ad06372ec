// What stands in front of a log record's message for people: the device, or the source, that it is about.

/** With a colon and a space behind it; nothing where the message says it itself. */
export function subjectOf(record: {
  readonly msg: string;
  readonly device?: string | undefined;
  readonly source?: string | undefined;
}): string {
  const { msg, device, source = '' } = record;
  const subject = device ?? (msg.includes(source) ? '' : source);
  return subject === '' ? '' : `${subject}: `;
}
