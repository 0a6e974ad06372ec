// What one look of doctor has found.

/** How it has turned out. A note is nothing wrong, but worth knowing. */
export interface Check {
  readonly name: string;
  readonly verdict: 'ok' | 'note' | 'problem';
  readonly found: string;
  /** A command to paste that mends it; null: there is nothing to do, or none that would. */
  readonly fix: string | null;
}

export function ok(name: string, found: string): Check {
  return { name, verdict: 'ok', found, fix: null };
}

export function note(name: string, found: string, fix: string | null = null): Check {
  return { name, verdict: 'note', found, fix };
}

export function problem(name: string, found: string, fix: string | null): Check {
  return { name, verdict: 'problem', found, fix };
}

/** A word as a shell takes it. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
