// The daemon's log: pino's records on standard error, as JSON or as text, by an output that never blocks.
import { type Logger, pino } from 'pino';
import { subjectOf } from './log-subject.js';
import type { Log, LogLevel } from './rng-device.js';
import { offerTo, STDERR } from './standard-stream.js';

export const LOG_FORMATS = ['text', 'json'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug'] as const satisfies readonly LogLevel[];

/** syslog priorities for the journal. Source: sd-daemon(3). */
const PRIORITIES: Readonly<Record<string, number>> = { error: 3, warn: 4, info: 6, debug: 7 };
/** Control characters, which a peer could use to forge lines or to drive a terminal. */
// eslint-disable-next-line no-control-regex -- that is what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g;

/** A lost line counts against the health of the daemon for so long. Ours. */
const LATELY_MS = 300_000;

/** Where log lines go. */
interface LineOutput {
  write(line: string): void;
}

/** Standard error; a line that would block is dropped and counted, and the count goes out before the next line. */
class NonBlockingStderr implements LineOutput {
  private dropped = 0;
  droppedInAll = 0;
  lastDropMs = -Infinity;
  private readonly form: (record: string) => string;

  /** `form` makes a line of a record in pino's JSON. */
  constructor(form: (record: string) => string) {
    this.form = form;
  }

  write(record: string): void {
    if (this.dropped > 0 && offerTo(STDERR, this.form(droppedRecord(this.dropped)))) this.dropped = 0;
    if (offerTo(STDERR, this.form(record))) return;
    this.dropped++;
    this.droppedInAll++;
    this.lastDropMs = performance.now();
  }
}

/** The fields of a record that the text form shows. */
interface LogRecord {
  readonly level: string;
  readonly time: string;
  readonly code: string;
  readonly msg: string;
  readonly device?: string;
  readonly source?: string;
  readonly suppressed?: number;
}

/** The record that tells how many were dropped. */
function droppedRecord(dropped: number): string {
  const time = new Date().toISOString();
  const msg = `${dropped} log lines were dropped: standard error was full`;
  return `${JSON.stringify({ level: 'warn', time, code: 'log_dropped', dropped, msg })}\n`;
}

/**
 * A record as a line of text: `2026-01-31T12:00:00.000Z info rng0: listening …`. Under the journal a priority stands in
 * front instead, and the journal adds the time.
 */
function textLine(line: string, journal: boolean): string {
  const record = JSON.parse(line) as LogRecord;
  const head = journal ? `<${PRIORITIES[record.level] ?? 6}>` : `${record.time} ${record.level} `;
  const more = record.suppressed === undefined ? '' : ` (${record.suppressed} more like this before)`;
  return `${head}${escapeControl(`${subjectOf(record)}${record.msg} [${record.code}]`)}${more}\n`;
}

/** Makes control characters visible. */
function escapeControl(text: string): string {
  return text.replace(CONTROL, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** The open log. */
export class DaemonLog {
  readonly log: Log;
  private readonly output: NonBlockingStderr;
  private readonly logger: Logger;
  private readonly listeners = new Set<(record: string) => void>();

  /** Under systemd's journal (JOURNAL_STREAM) text lines carry a priority. */
  constructor(options: { readonly format: LogFormat; readonly level: LogLevel }) {
    const journal = process.env['JOURNAL_STREAM'] !== undefined;
    this.output = new NonBlockingStderr(
      options.format === 'json' ? (record) => record : (record) => textLine(record, journal),
    );
    this.logger = pino(
      {
        level: options.level,
        base: null,
        timestamp: () => `,"time":"${new Date().toISOString()}"`,
        formatters: { level: (label) => ({ level: label }) },
      },
      {
        write: (record: string) => {
          this.output.write(record);
          for (const listener of this.listeners) listener(record);
        },
      },
    );
    this.log = (level, code, message, fields = {}) => this.logger[level]({ code, ...fields }, message);
  }

  /** Lines that standard error could not take since the start. */
  get droppedLines(): number {
    return this.output.droppedInAll;
  }

  /** The same number while the last one is fresh, otherwise 0. */
  get droppedLately(): number {
    return performance.now() - this.output.lastDropMs < LATELY_MS ? this.output.droppedInAll : 0;
  }

  setLevel(level: LogLevel): void {
    this.logger.level = level;
  }

  /** Gives every record from now on to `listener`, as a line of JSON; the result ends that. */
  listen(listener: (record: string) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}
