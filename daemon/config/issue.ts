// Says what is wrong with a value in the words of the project: expected X, got Y.
import type * as v from 'valibot';

/** Longer values are cut in a message. */
const SHOWN_CHARACTERS = 60;

/** Where in the input the issue is, and a sentence. */
export function firstIssue(issue: v.BaseIssue<unknown>): {
  readonly path: readonly (string | number)[];
  readonly message: string;
} {
  const path = (issue.path ?? []).map(({ key }) => (typeof key === 'number' ? key : String(key)));
  if (issue.type === 'strict_object') {
    // An unknown key, or one that is missing.
    if (issue.expected === 'never') return { path, message: 'expected a known key' };
    if (issue.received === 'undefined') return { path, message: 'expected a value, got none' };
    return { path, message: `expected an object, got ${issue.received}` };
  }
  const own = issue.message.startsWith('expected')
    ? issue.message
    : `expected ${issue.expected ?? 'another value'}`;
  return { path, message: `${own}, got ${shown(issue.input)}` };
}

function shown(value: unknown): string {
  const text = value instanceof Date ? value.toISOString() : (JSON.stringify(value) as string | undefined);
  if (text === undefined) return 'none';
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}…` : text;
}
