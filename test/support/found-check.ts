// One look of doctor against what it is to find.
import type { Test } from 'tap';
import type { Check } from '../../daemon/ctl/check.js';

type Wanted = readonly [verdict: Check['verdict'], text: RegExp, fix?: RegExp];

/** It is as wanted, and its fix too; without one there is to be none. */
export function found(t: Test, check: Check | undefined, ...[verdict, text, fix]: Wanted): void {
  t.equal(check?.verdict, verdict, `${check?.name ?? 'nothing'}: ${check?.found ?? ''}`);
  t.match(check?.found, text);
  if (fix === undefined) t.equal(check?.fix, null);
  else t.match(check?.fix, fix);
}
