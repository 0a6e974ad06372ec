// The log as whoever reads standard error sees it: forms, priorities, what is escaped, and what happens when no one reads.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { asFd, closeFd, setNonBlocking } from '../../shared-memory/fd.js';
import { NativeMemory } from '../../shared-memory/ffi.js';
import * as libc from '../../shared-memory/libc.js';
import { openPipe } from '../support/fd-kinds.js';

const WRITER = fileURLToPath(new URL('../support/log-writer.js', import.meta.url));
const ISO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/** What the writer puts on standard error. */
function logged(format: string, message: string, level = 'info', env: NodeJS.ProcessEnv = {}): string {
  const clean = { ...process.env };
  delete clean['JOURNAL_STREAM'];
  const args = [WRITER, format, '1', JSON.stringify(message), level];
  const { stderr } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    env: { ...clean, ...env },
    input: '',
  });
  return stderr;
}

t.test('text: time, level, device, message, code', (t) => {
  const [time, level, ...rest] = logged('text', 'something has happened').trimEnd().split(' ');
  t.match(time, ISO_TIME);
  t.equal(level, 'info');
  t.equal(rest.join(' '), 'rng0: something has happened [test_line]');
  t.end();
});

t.test('JSON: one object a line, with the same words', (t) => {
  const text = logged('json', 'something has happened', 'warn');
  t.equal(text.split('\n').length, 2);
  const { time, ...record } = JSON.parse(text) as Record<string, string>;
  t.match(time, ISO_TIME);
  t.same(record, { level: 'warn', code: 'test_line', device: 'rng0', msg: 'something has happened' });
  t.end();
});

t.test('under the journal each level has its syslog priority, and the time is the journal’s', (t) => {
  const env = { JOURNAL_STREAM: '8:1234' };
  for (const [level, priority] of Object.entries({ error: 3, warn: 4, info: 6, debug: 7 })) {
    t.equal(logged('text', 'x', level, env), `<${priority}>rng0: x [test_line]\n`);
  }
  t.end();
});

const HOSTILE: Readonly<Record<string, readonly [string, string]>> = {
  'a forged line': [
    'a\n2026-01-01T00:00:00.000Z error forged',
    'a\\x0a2026-01-01T00:00:00.000Z error forged',
  ],
  'a carriage return': ['a\rb', 'a\\x0db'],
  'a terminal sequence': ['\u001b[31mred\u001b[0m', '\\x1b[31mred\\x1b[0m'],
  'an 8-bit control sequence': ['\u009b31m', '\\x9b31m'],
  'NUL and DEL': ['\u0000\u007f', '\\x00\\x7f'],
  'a tab': ['a\tb', 'a\\x09b'],
  'letters of the world': ['grün 緑 🎲', 'grün 緑 🎲'],
};

for (const [title, [message, shown]] of Object.entries(HOSTILE)) {
  t.test(`row 171: ${title} is one line`, (t) => {
    const text = logged('text', message);
    t.ok(text.endsWith(` rng0: ${shown} [test_line]\n`), text);
    t.equal(text.split('\n').length, 2);
    const json = logged('json', message);
    t.equal(json.split('\n').length, 2);
    t.equal((JSON.parse(json) as { msg: string }).msg, message, 'JSON keeps it, escaped');
    t.end();
  });
}

t.test('a line longer than a pipe takes in one piece is cut', (t) => {
  const text = logged('text', 'x'.repeat(10_000));
  t.equal(text.length, 4096);
  t.ok(text.endsWith('x\n'));
  t.end();
});

/** All that can be read from a pipe now. */
function drain(fd: number): string {
  const memory = new NativeMemory(65536);
  let text = '';
  for (;;) {
    const got = libc.read(fd, memory.address, 65536);
    if (got <= 0) return text;
    text += memory.bytes.toString('utf8', 0, got);
  }
}

const LINES = 5000;

for (const format of ['text', 'json']) {
  t.test(
    `F36, F37: standard error is a full pipe that no one reads; ${LINES} lines, ${format}`,
    async (t) => {
      const [readEnd, writeEnd] = openPipe();
      setNonBlocking(readEnd);
      const child = startWriter(t, format, writeEnd);
      closeFd(writeEnd);
      await once(child.stdout, 'data');
      const first = drain(readEnd);
      const kept = first.trimEnd().split('\n');
      t.ok(kept.length > 100 && kept.length < LINES, `${kept.length} lines fitted, and the writer went on`);
      t.ok(
        kept.every((line) => line.includes('a line')),
        'each of them whole',
      );
      child.stdin.write('.');
      await once(child.stdout, 'data');
      const [notice = '', after = '', ...rest] = drain(readEnd).trimEnd().split('\n');
      t.match(notice, `${LINES - kept.length} log lines were dropped`, 'none is uncounted');
      t.match(after, 'after');
      t.same(rest, []);
      if (format === 'json')
        t.equal((JSON.parse(notice) as { code: string }).code, 'log_dropped', 'in the log’s own form');
      else t.match(notice, / warn .*\[log_dropped\]$/, 'in the log’s own form');
      child.stdin.end();
      const [code] = await child.exited;
      t.equal(code, 0);
      closeFd(readEnd);
    },
  );
}

/** A writer whose standard error is an open descriptor. */
function startWriter(t: Test, format: string, stderr: number) {
  const args = [WRITER, format, String(LINES), '"a line"'];
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', stderr] });
  t.teardown(() => child.kill('SIGKILL'));
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new Error('no pipes');
  return { stdin, stdout, exited: once(child, 'exit') as Promise<[number]> };
}

t.test(
  'F36: standard error on a full disk, closed, or without a reader: nothing throws, nothing blocks',
  async (t) => {
    const [readEnd, writeEnd] = openPipe();
    closeFd(readEnd);
    const full = asFd(openSync('/dev/full', 'w'));
    for (const stderr of [writeEnd, full]) {
      const child = startWriter(t, 'text', stderr);
      await once(child.stdout, 'data');
      child.stdin.end();
      const [code] = await child.exited;
      t.equal(code, 0);
      closeFd(stderr);
    }
    const closed = spawnSync('sh', [
      '-c',
      'exec "$0" "$1" text 10 \'"x"\' 2>&- <&-',
      process.execPath,
      WRITER,
    ]);
    t.equal(closed.status, 0);
    t.equal(closed.stdout.toString(), 'done\n');
  },
);
