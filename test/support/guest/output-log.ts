// What a child process has written so far, as text that a test can wait on and that its failure messages quote.

interface Waiter {
  readonly pattern: RegExp;
  readonly from: number;
  readonly resolve: (match: RegExpExecArray) => void;
  readonly reject: (reason: Error) => void;
}

/** An append-only text with waiters for patterns in it. */
export class OutputLog {
  readonly #title: string;
  readonly #waiters = new Set<Waiter>();
  #text = '';
  #ended: string | undefined;

  /** `title` names the writer in failure messages, as "guest console". */
  constructor(title: string) {
    this.#title = title;
  }

  get text(): string {
    return this.#text;
  }

  append(text: string): void {
    this.#text += text;
    for (const waiter of this.#waiters) this.#settle(waiter);
  }

  /** No more text will come, for `reason`: whoever still waits is told. */
  end(reason: string): void {
    this.#ended = reason;
    for (const waiter of this.#waiters) this.#settle(waiter);
  }

  /**
   * Gives the first match of `pattern` at or after character `from`, which may be there already.
   *
   * Rejects with the text so far when `timeoutMs` have passed or when the writer ended without it.
   */
  async waitFor(pattern: RegExp, timeoutMs: number, from = 0): Promise<RegExpExecArray> {
    let waiter: Waiter | undefined;
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<RegExpExecArray>((resolve, reject) => {
        waiter = { pattern, from, resolve, reject };
        this.#waiters.add(waiter);
        timer = setTimeout(() => reject(this.#failure(pattern, `not within ${timeoutMs} ms`)), timeoutMs);
        this.#settle(waiter);
      });
    } finally {
      clearTimeout(timer);
      if (waiter !== undefined) this.#waiters.delete(waiter);
    }
  }

  /** The last `characters` of the text under a heading, for a failure message. */
  quote(characters = 4096): string {
    return `--- ${this.#title} ---\n${this.#text.slice(-characters).trimEnd()}\n--- end of ${this.#title} ---`;
  }

  #settle(waiter: Waiter): void {
    const match = waiter.pattern.exec(this.#text.slice(waiter.from));
    if (match !== null) waiter.resolve(match);
    else if (this.#ended !== undefined) waiter.reject(this.#failure(waiter.pattern, this.#ended));
  }

  #failure(pattern: RegExp, why: string): Error {
    return new Error(`expected ${String(pattern)} in the ${this.#title}: ${why}\n${this.quote()}`);
  }
}
