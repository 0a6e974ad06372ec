// What was delivered when, and the fullest window of it.

/** Bytes that were delivered at one moment. */
export interface Delivery {
  readonly atMs: number;
  readonly bytes: number;
}

/** Deliveries in order of time, and what the last window of them holds. */
export class Ledger {
  readonly deliveries: Delivery[] = [];
  /** Bytes of all deliveries before each. */
  private readonly before: number[] = [];
  total = 0;

  add(atMs: number, bytes: number): void {
    this.deliveries.push({ atMs, bytes });
    this.before.push(this.total);
    this.total += bytes;
  }

  /** Bytes delivered later than `ms`. */
  since(ms: number): number {
    let low = 0;
    let high = this.deliveries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.deliveries[middle]?.atMs ?? 0) > ms) high = middle;
      else low = middle + 1;
    }
    return this.total - (this.before[low] ?? this.total);
  }
}

/** The most bytes in any window of `windowMs`, open at its end, and where that begins. `deliveries` are in order of time. */
export function fullestWindow(
  deliveries: readonly Delivery[],
  windowMs: number,
): { readonly bytes: number; readonly fromMs: number } {
  let fullest = { bytes: 0, fromMs: 0 };
  let end = 0;
  let sum = 0;
  // A fullest window begins with a delivery.
  for (const first of deliveries) {
    for (
      let next = deliveries[end];
      next !== undefined && next.atMs < first.atMs + windowMs;
      next = deliveries[end]
    ) {
      sum += next.bytes;
      end++;
    }
    if (sum > fullest.bytes) fullest = { bytes: sum, fromMs: first.atMs };
    sum -= first.bytes;
  }
  return fullest;
}
