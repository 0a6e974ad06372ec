// Deadlines for everything that a test waits for: a guest or a daemon that hangs becomes a failed test with a reason,
// never a hanging test.

/** Settles as `work` does, or rejects after `timeoutMs` with the message of `explain`, which is built only then. */
export async function withDeadline<T>(
  work: Promise<T>,
  timeoutMs: number,
  explain: () => string,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(explain())), timeoutMs);
  });
  try {
    return await Promise.race([work, expired]);
  } finally {
    clearTimeout(timer);
  }
}

/** Calls `look` every 50 ms until it gives true; rejects after `timeoutMs` with the message of `explain`. */
export async function waitUntil(
  look: () => boolean,
  timeoutMs: number,
  explain: () => string,
): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!look()) {
    if (performance.now() > endMs) throw new Error(explain());
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
