// Work one after the other, whoever asks for it.

/** Takes turns. */
export class Turns {
  private last: Promise<unknown> = Promise.resolve();

  /** Runs `work` after all that was asked for before, whatever became of that. */
  async take<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.last.then(work, work);
    this.last = turn.catch(() => undefined);
    return turn;
  }
}

/** Work that looks at how things are when it begins: whoever asks for it while it waits for its turn is given that one. */
export class JoinedWork<A, T> {
  private readonly turns: Turns;
  private readonly work: (argument: A) => Promise<T>;
  private waiting: Promise<T> | undefined;
  private running = false;

  constructor(turns: Turns, work: (argument: A) => Promise<T>) {
    this.turns = turns;
    this.work = work;
  }

  /** True while it waits or runs. */
  get isUnderWay(): boolean {
    return this.running || this.waiting !== undefined;
  }

  /** Runs it once more, with the argument of whoever asked first. */
  async ask(argument: A): Promise<T> {
    this.waiting ??= this.turns.take(async () => {
      this.waiting = undefined;
      this.running = true;
      try {
        return await this.work(argument);
      } finally {
        this.running = false;
      }
    });
    return this.waiting;
  }
}
