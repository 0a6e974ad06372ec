// Keeps a peer from filling the log: so many lines of a kind in a window, and a count of the rest.

/** Lines of one kind within {@link WINDOW_MS}. */
interface KindCount {
  windowEndsMs: number;
  lines: number;
  suppressed: number;
}

/** The window of ARCHITECTURE.md's promise: one line per kind and connection in 10 s. */
const WINDOW_MS = 10_000;

/** Counts lines by kind. Times are monotonic. */
export class LogThrottle {
  private readonly linesPerWindow: number;
  private readonly kinds = new Map<string, KindCount>();

  constructor(linesPerWindow: number) {
    this.linesPerWindow = linesPerWindow;
  }

  /** Lines of `kind` that were suppressed since the last one that passed, or undefined: suppress this one too. */
  pass(kind: string): number | undefined {
    const now = performance.now();
    let count = this.kinds.get(kind);
    if (count === undefined) {
      count = { windowEndsMs: 0, lines: 0, suppressed: 0 };
      this.kinds.set(kind, count);
    }
    if (now >= count.windowEndsMs) {
      count.windowEndsMs = now + WINDOW_MS;
      count.lines = 0;
    }
    if (count.lines >= this.linesPerWindow) {
      count.suppressed++;
      return undefined;
    }
    count.lines++;
    const suppressed = count.suppressed;
    count.suppressed = 0;
    return suppressed;
  }
}
