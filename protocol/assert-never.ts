// The end of every switch over a closed union: a case that was forgotten fails to compile here.

/**
 * Marks a place that no value can reach.
 *
 * @throws Error when a value that its type forbids arrives all the same: a defect of ours, never a peer's doing.
 */
export function assertNever(value: never): never {
  throw new Error(`expected no value, got ${String(value)}`);
}
