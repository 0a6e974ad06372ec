// What an operator is told of an error that nobody has expected: a bug, with its stack; or, where file descriptors have run out, which
// is for him to mend, one line with the fix.
import { Fault } from '../protocol/fault.js';

export interface Failure {
  readonly code: string;
  readonly text: string;
}

/** Names that stand in messages of node's errors and of ours. */
const FIXES = { EMFILE: 'raise LimitNOFILE, or ulimit -n', ENFILE: 'raise fs.file-max' } as const;

/** The fix for a message that names an error of too few descriptors; undefined: it names none. */
export function filesFix(message: string): string | undefined {
  const name = (['EMFILE', 'ENFILE'] as const).find((one) => message.includes(one));
  return name && FIXES[name];
}

export function failureOf(error: Error): Failure {
  const { message, stack } = error;
  // It says itself what to do.
  if (error instanceof Fault) return { code: error.code, text: message };
  const fix = filesFix(message);
  return fix === undefined
    ? { code: 'internal', text: stack ?? message }
    : { code: 'too_few_files', text: `expected to open one file more, got ${message}: ${fix}` };
}
