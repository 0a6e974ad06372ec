// A record of the log as a line for people.
import * as v from 'valibot';
import { subjectOf } from '../log-subject.js';
import { type Output, printable, type Tone, toned } from './output.js';

const RecordShape = v.object({
  level: v.string(),
  time: v.string(),
  code: v.string(),
  msg: v.string(),
  device: v.optional(v.string()),
  source: v.optional(v.string()),
});

const TONES: Readonly<Record<string, Tone>> = { error: 'bad', warn: 'warn', info: 'good' };

/** `12:00:00 warn rng0: text [code]`; a line that is no record as it is. Ends in a new line. */
export function eventText(output: Output, line: string): string {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return `${printable(line)}\n`;
  }
  const record = v.safeParse(RecordShape, value);
  if (!record.success) return `${printable(line)}\n`;
  const { level, time, code, msg } = record.output;
  const about = printable(subjectOf(record.output));
  const clock = toned(output, 'faint', time.slice(11, 19));
  return `${clock} ${toned(output, TONES[level] ?? 'faint', level)} ${about}${printable(msg)} [${code}]\n`;
}
