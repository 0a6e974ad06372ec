// The settings one by one, with their bounds and their sentences: options, configuration file and control socket check
// values with these, and `--help`, the JSON schema and /openapi.json are made of them.
import * as v from 'valibot';
import { MEMORY_POLICIES } from '../../shared-memory/memory-region.js';
import { MAX_SOCKET_PATH_BYTES } from '../../shared-memory/unix-socket.js';
import { MAX_SEATS } from '../ledger.js';
import { LOG_FORMATS, LOG_LEVELS } from '../log.js';

/** Polling longer than this is a CPU given away, not a latency won. Ours. */
const MAX_BUSY_POLL_US = 1_000_000;
const MAX_SLOTS = 32;
const MAX_INT = 2 ** 31 - 1;
/** Names appear in logs, metrics and URLs. Ours. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const CONTROL = /\p{Cc}/u;

type IntegerField = v.SchemaWithPipe<
  readonly [
    v.NumberSchema<string>,
    v.IntegerAction<number, string>,
    v.MinValueAction<number, number, string>,
    v.MaxValueAction<number, number, string>,
    v.DescriptionAction<number, string>,
  ]
>;

/** An integer from `least` to `most`. */
function integer(least: number, most: number, description: string): IntegerField {
  const expected = `expected an integer from ${least} to ${most}`;
  return v.pipe(
    v.number(expected),
    v.integer(expected),
    v.minValue(least, expected),
    v.maxValue(most, expected),
    v.description(description),
  );
}

export const deviceName = v.pipe(
  v.string('expected a name'),
  v.regex(NAME, 'expected a name of letters, digits, dot, dash and underscore, at most 64'),
  v.description('name of the device in logs, metrics and commands'),
);

export const socketPath = v.pipe(
  v.string('expected a path'),
  v.check((path) => path.startsWith('/') && !CONTROL.test(path), 'expected an absolute path'),
  v.maxBytes(MAX_SOCKET_PATH_BYTES, `expected a path of at most ${MAX_SOCKET_PATH_BYTES} bytes`),
  v.description('where the VMM connects'),
);

export const inheritedFd = integer(0, MAX_INT, 'use an inherited socket, listening or connected, instead');

export const maxBytes = integer(1, Number.MAX_SAFE_INTEGER, 'at most so many bytes in any period');
export const periodMs = integer(1, MAX_INT, 'length of the period in ms');

export const burstBytes = integer(
  0,
  Number.MAX_SAFE_INTEGER,
  'so many bytes more, once in the life of the device',
);
export const weight = integer(1, 1000, "the device's part of the total against the others'");

/** A limit as the control socket gives and takes it. */
export const limitFields = { maxBytes, periodMs, burstBytes: v.optional(burstBytes, 0) };

const BUSY_POLL = 'watch a ring for so many µs after a request before sleeping; auto is 0 in this version';
export const busyPollUs = v.pipe(
  v.union(
    [v.literal('auto'), integer(0, MAX_BUSY_POLL_US, BUSY_POLL)],
    `expected auto or an integer from 0 to ${MAX_BUSY_POLL_US}`,
  ),
  v.description(BUSY_POLL),
);

export const memoryPolicy = v.pipe(
  v.picklist(MEMORY_POLICIES, `expected ${MEMORY_POLICIES.join(', ')}`),
  v.description('guest memory whose file can be shrunk: guard every access, refuse it, or trust the VMM'),
);

export const memSlots = integer(
  0,
  MAX_SLOTS,
  'offer CONFIGURE_MEM_SLOTS with so many slots; 0: do not offer it',
);

export const connections = integer(
  1,
  MAX_SEATS,
  'front-ends that one socket serves at a time, each with a ring of its own, all within the limit of the device',
);

export const octalMode = v.pipe(
  v.string('expected an octal mode such as "0660"'),
  v.regex(/^0?[0-7]{3}$/, 'expected an octal mode such as "0660"'),
  v.description('mode of the socket file, octal'),
);

export const socketGroup = v.pipe(
  v.string('expected a group'),
  v.minLength(1, 'expected a group'),
  v.description('group of the socket file, by name or number'),
);

export const userName = v.pipe(
  v.string('expected a user'),
  v.minLength(1, 'expected a user'),
  v.description('a user, by name or number'),
);

export const sourceText = v.pipe(
  v.string('expected a source'),
  v.description(
    'as --source: random, hwrng, getrandom, rdrand, rdseed, jitter, egd:…; with ,min-entropy=BITS where it is less',
  ),
);

export const logFormat = v.pipe(
  v.picklist(LOG_FORMATS, `expected ${LOG_FORMATS.join(', ')}`),
  v.description('form of the log on standard error'),
);

export const logLevel = v.pipe(
  v.picklist(LOG_LEVELS, `expected ${LOG_LEVELS.join(', ')}`),
  v.description('least level that is logged'),
);

export const path = v.pipe(
  v.string('expected a path'),
  v.check((text) => text.startsWith('/') && !CONTROL.test(text), 'expected an absolute path'),
);
