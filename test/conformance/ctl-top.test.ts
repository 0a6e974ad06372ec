// `vhost-rngctl top` in a real terminal, against a real daemon: what it shows, that it follows the terminal's size and the daemon,
// and that the terminal is given back however it ends. Issue 4, point 5.
//
// Leaves out: layouts of all sizes and rates of all counters (test/daemon/ctl/top-view, top-history).
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { startDaemon } from '../support/guest/daemon.js';
import { waitUntil } from '../support/guest/deadline.js';
import { ReadingGuest } from '../support/reading-guest.js';
import { type RngDaemon, startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { childrenOf, CTL, Terminal, type TerminalModes, terminalMissing } from '../support/terminal.js';

const skip = terminalMissing() ?? false;
const WIDE = { columns: 110, rows: 24 };
const EX_UNAVAILABLE = 69;
const PATIENCE_MS = 20_000;

interface Stand extends RngDaemon {
  readonly args: readonly string[];
  readonly terminal: Terminal;
  /** The terminal's modes before top. */
  readonly before: TerminalModes;
  /** Starts top and waits until it shows the daemon; its process. */
  readonly start: (prefix?: string, nodeOption?: string) => Promise<number>;
}

async function makeStand(t: Test, args: readonly string[] = [], devices = 2): Promise<Stand> {
  const control = join(temporaryFolder(t), 'c.sock');
  const all = [`--control-socket=${control}`, ...args];
  const rng = await startRngDaemon(t, { devices, args: all });
  const terminal = await Terminal.start(t, WIDE, {
    NODE: process.execPath,
    CTL,
    VHOST_RNGD_CONTROL_SOCKET: control,
  });
  const before = terminal.modes;
  const start = async (prefix = '', option = ''): Promise<number> => {
    terminal.type(`${prefix}"$NODE" ${option} "$CTL" top --interval 0.2; echo ended: $?`);
    await terminal.waitFor(/^vhost-rngd .*\nhealth ok/);
    const [pid = 0] = childrenOf(terminal.shellPid);
    return pid;
  };
  return {
    ...rng,
    args: [...rng.paths.map((path) => `--socket-path=${path}`), ...all],
    terminal,
    before,
    start,
  };
}

/** The shell has the terminal again, as it was, with what stood there before. */
async function givenBack(t: Test, { terminal, before }: Stand, status: number): Promise<void> {
  const screen = await terminal.waitFor(/ended: \d+\nshell> $/);
  t.match(
    screen,
    new RegExp(`top --interval 0\\.2; echo ended: \\$\\?\\n(.*\\n)*ended: ${status}\n`),
    'what was typed is there again',
  );
  t.notMatch(screen, /^vhost-rngd .*pid/m, 'no trace of the view');
  t.same(terminal.modes, before, 'cursor, screen and settings are as before');
}

await t.test('devices, sources and health; the sparkline moves while a guest reads', { skip }, async (t) => {
  const stand = await makeStand(t);
  const { terminal, path } = stand;
  await stand.start();
  const idle = await terminal.waitFor(/▁$/m);
  t.match(idle, /^rng0 +listening +0 B\/s/m);
  t.match(idle, /^rng1 +listening +0 B\/s/m);
  t.match(idle, /^random:\/dev\/random +healthy/m);
  t.match(idle, /^q quit .*$/m);
  t.same(
    [terminal.modes.alternate, terminal.modes.cursor],
    [true, false],
    'a screen of its own, without a cursor',
  );
  const guest = new ReadingGuest(t, path);
  const spark = (): string => /^rng0 .* ([▁-█]+)$/m.exec(terminal.screen)?.[1] ?? '';
  await guest.readUntil(
    () => /^rng0 +running +[1-9][\d.]* [KM]iB\/s .*[▂-█]{2}$/m.test(terminal.screen),
    'a sparkline',
  );
  const reading = spark();
  t.match(reading, /▁.*[▂-█]$/, 'from nothing to something');
  await guest.readUntil(() => spark().length > reading.length, 'a longer sparkline');
  const quiet = await terminal.waitFor(/^rng0 +running +0 B\/s .*[▂-█]▁+$/m);
  t.match(quiet, /^rng1 +listening +0 B\/s/m, 'the other one has nothing of it');
});

await t.test('a device at its limit: how much is used, and for how long it was held', { skip }, async (t) => {
  const stand = await makeStand(t, ['--max-bytes=1024', '--period=400']);
  await stand.start();
  const guest = new ReadingGuest(t, stand.path);
  const held = /^rng0 +(held: limit|running) .* 1\.00 KiB \/ 400 ms +100 % +([5-9]\d|100) %/m;
  await guest.readUntil(() => held.test(stand.terminal.screen), 'a device that is held for its limit');
  t.match(stand.terminal.screen, /^rng1 .* 0 % +0 %/m);
});

await t.test('another size is another layout, at once', { skip }, async (t) => {
  const stand = await makeStand(t);
  const { terminal } = stand;
  await stand.start();
  await terminal.waitFor(/^DEVICE STATE .* THROTTLED STARVED /m);
  const isWhole = (screen: string, rows: number): boolean =>
    screen.startsWith('vhost-rngd') && /\nq quit .*$/.test(screen) && screen.split('\n').length === rows;
  terminal.resize(40, 10);
  const narrow = await terminal.waitFor(
    (screen) => isWhole(screen, 10) && /^rng0 .* 0 B\/s/m.test(screen) && !screen.includes('THROTTLED'),
  );
  t.match(narrow, /^DEVICE +.*RATE/m);
  t.match(narrow, /^rng1 /m);
  terminal.resize(150, 30);
  const wide = await terminal.waitFor((screen) => isWhole(screen, 30) && /P50 +P99/.test(screen));
  t.equal(wide.match(/^vhost-rngd/gm)?.length, 1, 'nothing is left of the frames before');
});

await t.test('more devices than rows are scrolled, and sorted by another column', { skip }, async (t) => {
  const stand = await makeStand(t, [], 40);
  const { terminal } = stand;
  await stand.start();
  const first = await terminal.waitFor(/1-(\d+) of 40/);
  t.match(first, /^rng0 /m);
  t.match(first, /^rng2 .*\n(.*\n)*rng10 /m, 'as people count');
  t.notMatch(first, /^rng39 /m);
  terminal.press('Down');
  await terminal.waitFor(/2-\d+ of 40/);
  terminal.press('End');
  t.match(await terminal.waitFor(/-40 of 40/), /^rng39 /m, 'the last one');
  terminal.press('Home');
  await terminal.waitFor(/1-\d+ of 40/);
  terminal.press('s');
  await terminal.waitFor(/s sort: rate/);
});

await t.test('q and Ctrl-C give the terminal back', { skip }, async (t) => {
  const stand = await makeStand(t);
  for (const key of ['q', 'C-c']) {
    await stand.start();
    stand.terminal.press(key);
    await givenBack(t, stand, 0);
    stand.terminal.press('C-l');
    await stand.terminal.waitFor(/^shell> $/);
  }
});

for (const signal of ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP'] as const) {
  await t.test(`${signal} gives the terminal back`, { skip }, async (t) => {
    const stand = await makeStand(t);
    process.kill(await stand.start(), signal);
    await givenBack(t, stand, 0);
  });
}

await t.test('a bug gives the terminal back, and can be read', { skip }, async (t) => {
  const stand = await makeStand(t);
  const bug = `'data:text/javascript,setTimeout(()=>{throw new Error("a bug of the test")},3000)'`;
  await stand.start('', `--import ${bug}`);
  const screen = await stand.terminal.waitFor(/ended: \d+\nshell> $/);
  t.match(screen, /^Error: a bug of the test$/m);
  t.same(stand.terminal.modes, stand.before);
});

for (const [title, stop] of [
  ['Ctrl-Z', (terminal: Terminal): void => terminal.press('C-z')],
  ['SIGTSTP', (_: Terminal, pid: number): void => void process.kill(pid, 'SIGTSTP')],
] as const) {
  await t.test(`${title} stops it and gives the terminal back; fg shows it again`, { skip }, async (t) => {
    const stand = await makeStand(t);
    const { terminal, before } = stand;
    const pid = await stand.start();
    stop(terminal, pid);
    await terminal.waitFor(/Stopped.*top --interval(.*\n)*shell> $/);
    await terminal.waitForModes(({ alternate }) => !alternate);
    t.match(terminal.modes, { cursor: true, alternate: false, wraps: before.wraps });
    terminal.type('fg');
    await terminal.waitFor(/^vhost-rngd .*\nhealth ok/);
    t.match(terminal.modes, { cursor: false, alternate: true });
    const up = /up (\d+) s/.exec(terminal.screen)?.[1];
    await terminal.waitFor((screen) => /up (\d+) s/.exec(screen)?.[1] !== up);
    terminal.press('q');
    await terminal.waitFor(/shell> $/);
    t.same(terminal.modes, before);
  });
}

await t.test(
  'SIGSTOP, of which it is not told: the screen is drawn anew when it goes on',
  { skip },
  async (t) => {
    const stand = await makeStand(t);
    const { terminal, before } = stand;
    process.kill(await stand.start(), 'SIGSTOP');
    await terminal.waitFor(/Stopped.*top --interval/);
    terminal.type('clear; fg');
    const screen = await terminal.waitFor(/^vhost-rngd .*\nhealth ok(.*\n)+q quit/);
    t.notMatch(screen, /Stopped/);
    t.match(terminal.modes, { cursor: false, alternate: true, wraps: false });
    terminal.press('q');
    await terminal.waitFor(/shell> $/);
    t.same(terminal.modes, before);
  },
);

await t.test('the terminal goes: so does top', { skip }, async (t) => {
  const stand = await makeStand(t);
  const pid = await stand.start();
  stand.terminal.close();
  await waitUntil(
    () => !existsSync(`/proc/${pid}`),
    PATIENCE_MS,
    () => `process ${pid} runs on`,
  );
  t.notOk(existsSync(`/proc/${pid}`));
});

await t.test('a daemon that goes is said to be away, and seen when it is back', { skip }, async (t) => {
  const stand = await makeStand(t);
  const { terminal } = stand;
  await stand.start();
  await stand.daemon.kill();
  const away = await terminal.waitFor(/NO ANSWER/);
  t.match(away, /what is shown is old; trying again\n +expected a daemon behind .*c\.sock/);
  t.match(away, /^rng0 +listening +- /m, 'no rate is made up');
  t.notMatch(away, /health ok/);
  const second = await startDaemon(stand.args);
  t.teardown(() => second.kill());
  const back = await terminal.waitFor(/^vhost-rngd .*\nhealth ok/);
  t.match(back, new RegExp(`pid ${second.pid},`));
  await terminal.waitFor(/^rng0 +listening +0 B\/s/m);
});

await t.test('a daemon that hangs is said to be silent, and keys go on to work', { skip }, async (t) => {
  const stand = await makeStand(t);
  const { terminal, daemon } = stand;
  await stand.start();
  process.kill(daemon.pid, 'SIGSTOP');
  t.teardown(() => process.kill(daemon.pid, 'SIGCONT'));
  await terminal.waitFor(/NO ANSWER.*\n +it was asked, and does not answer/);
  terminal.press('s');
  await terminal.waitFor(/s sort: rate/);
  process.kill(daemon.pid, 'SIGCONT');
  await terminal.waitFor(/^vhost-rngd .*\nhealth ok/);
  process.kill(daemon.pid, 'SIGSTOP');
  await terminal.waitFor(/NO ANSWER/);
  terminal.press('q');
  const quitMs = performance.now();
  await givenBack(t, stand, 0);
  t.ok(performance.now() - quitMs < 5000, 'an answer that does not come keeps nobody');
});

await t.test('without UTF-8 plain characters are drawn', { skip }, async (t) => {
  const stand = await makeStand(t);
  await stand.start('LC_ALL=C ');
  const screen = await stand.terminal.waitFor(/^rng0 .*_$/m);
  t.match(screen, /^[\n\u0020-\u007e]*$/);
});

/** Runs the client without a terminal, to its end. */
function run(args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  const env = { ...process.env, LC_ALL: 'C.UTF-8', NODE_OPTIONS: '' };
  return spawnSync(process.execPath, [CTL, ...args], { encoding: 'utf8', timeout: PATIENCE_MS, env });
}

await t.test('without a terminal: looks as text or as lines of JSON, without escapes', async (t) => {
  const control = join(temporaryFolder(t), 'c.sock');
  const { path } = await startRngDaemon(t, { args: [`--control-socket=${control}`] });
  new ReadingGuest(t, path);
  const args = [`--control-socket=${control}`, 'top', '--interval', '0.2'];
  const once = run([...args, '--once']);
  t.equal(once.status, 0);
  t.match(
    once.stdout,
    /^vhost-rngd .*\nhealth ok\n(.*\n)*rng0 +running +0 B\/s(.*\n)*random:\/dev\/random +healthy/,
  );
  t.notOk(once.stdout.includes('\u001b'));
  const json = run([...args, '--json', '--once']);
  t.match(JSON.parse(json.stdout), {
    status: { health: { status: 'ok' } },
    devices: [{ name: 'rng0', rates: { bytesPerSecond: 0, throttled: 0 }, limitUse: null }],
    sources: [{ spec: 'random:/dev/random' }],
  });
  const many = spawnSync('timeout', ['-s', 'TERM', '3', process.execPath, CTL, ...args, '--json'], {
    encoding: 'utf8',
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  const lines = many.stdout.trimEnd().split('\n');
  t.ok(lines.length >= 3, `${lines.length} looks in 3 s`);
  for (const line of lines) t.match(JSON.parse(line), { devices: [{ name: 'rng0' }] });
});

await t.test('no daemon from the start: an error and no view', (t) => {
  const control = join(temporaryFolder(t), 'none.sock');
  const { status, stdout, stderr } = run([`--control-socket=${control}`, 'top']);
  t.equal(status, EX_UNAVAILABLE);
  t.equal(stdout, '');
  t.match(stderr, /expected a control socket at .*none\.sock/);
  t.end();
});

await t.test('an interval that cannot be is refused', (t) => {
  for (const interval of ['0', '-1', 'soon', '1e9']) {
    const { status, stderr } = run(['top', '--interval', interval]);
    t.equal(status, 64, interval);
    t.match(stderr, /--interval/);
  }
  t.end();
});
