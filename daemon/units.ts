// Numbers as people read them: binary units, three digits, and times in the unit that fits.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;
const STEP = 1024;

/** `0 B`, `64 B`, `1.50 KiB`, `12.3 MiB`, `999 GiB`. */
export function bytesText(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // What would be rounded to 1000 or more of a unit is told in the next one.
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= STEP;
    unit++;
  }
  return `${unit === 0 ? Math.round(value) : threeDigits(value)} ${UNITS[unit] ?? ''}`;
}

/** `1.50 KiB/s`. */
export function rateText(bytesPerSecond: number): string {
  return `${bytesText(bytesPerSecond)}/s`;
}

/** A count or a rate of events: `0`, `12`, `1,234`, `0.25`. */
export function countText(count: number): string {
  const digits = count > 0 && count < 10 && !Number.isInteger(count) ? 2 : 0;
  return count.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A short time: `12 µs`, `1.50 ms`, `2.00 s`; a dash for none. */
export function latencyText(seconds: number | null): string {
  if (seconds === null) return '-';
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`;
  return seconds < 1 ? `${threeDigits(seconds * 1e3)} ms` : `${threeDigits(seconds)} s`;
}

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A long time in its two largest units: `5 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function durationText(seconds: number): string {
  const whole = Math.floor(seconds);
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return `${Math.floor(whole / MINUTE)} min ${whole % MINUTE} s`;
  if (whole < DAY) return `${Math.floor(whole / HOUR)} h ${Math.floor((whole % HOUR) / MINUTE)} min`;
  return `${Math.floor(whole / DAY)} d ${Math.floor((whole % DAY) / HOUR)} h`;
}

/** A share of 1: `0 %`, `<1 %`, `12 %`. */
export function percentText(share: number): string {
  return share > 0 && share < 0.01 ? '<1 %' : `${Math.round(share * 100)} %`;
}

function threeDigits(value: number): string {
  return value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
}
