// The commands of vhost-rngctl as a script runs them, against the real daemon: what they print, what they change, how they end; and
// completion in real shells.
//
// Leaves out: top (ctl-top), doctor (ctl-doctor), sources test (ctl-sources-test).
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { startDaemon } from '../support/guest/daemon.js';
import { type CtlRun, runCtl } from '../support/ctl-run.js';
import { LOG_MS } from '../support/fed-sources.js';
import { eventually, startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { CTL } from '../support/terminal.js';
import { VirtualMachine } from '../support/virtual-machine.js';

const EXIT = {
  ok: 0,
  degraded: 1,
  failing: 2,
  usage: 64,
  refused: 65,
  unavailable: 69,
  permission: 77,
} as const;

async function startAsked(t: Test, args: readonly string[] = [], devices = 2) {
  const control = join(temporaryFolder(t), 'control.sock');
  const started = await startRngDaemon(t, { devices, args: [`--control-socket=${control}`, ...args] });
  const ctl = (...words: readonly string[]): Promise<CtlRun> =>
    runCtl(words, { env: { VHOST_RNGD_CONTROL_SOCKET: control } });
  return { ...started, control, ctl };
}

await t.test('status, devices, device, sources, health and metrics tell how things stand', async (t) => {
  const { path, ctl, daemon } = await startAsked(t, ['--max-bytes=65536', '--period=1000']);
  const vm = VirtualMachine.start(path);
  for (let i = 0; i < 20; i++) vm.request(64);
  const status = await ctl('status');
  t.equal(status.status, EXIT.ok);
  t.match(status.stdout, new RegExp(`^vhost-rngd \\S+, pid ${daemon.pid}, up \\d+ s\nhealth: ok\n`));
  t.match(status.stdout, /^DEVICE +RING +GUEST +REQUESTS +BYTES +LIMIT/m);
  t.match(
    status.stdout,
    new RegExp(`^rng0 +running +pid ${process.pid} +20 +1\\.25 KiB +64\\.0 KiB / 1 s`, 'm'),
  );
  t.match(status.stdout, /^rng1 +listening +- +0 +0 B/m);
  t.match(status.stdout, /^random:\/dev\/random +healthy/m);
  t.notOk(status.stdout.includes('\u001b'), 'no colours in a pipe');
  t.match((await ctl('status', '--json')).stdout, /^\{"version":.*"devices":\[.*\]\}\n$/);
  t.match(JSON.parse((await ctl('--json', 'devices')).stdout), {
    devices: [{ name: 'rng0', requests: 20 }, {}],
  });
  const device = await ctl('device', 'rng0');
  t.match(
    device.stdout,
    /^memory +1\.00 MiB in 1 regions, sealed$|^ *memory +1\.00 MiB in 1 regions, sealed$/m,
  );
  t.match((await ctl('sources')).stdout, /^random:\/dev\/random +healthy +\S+ [KM]iB/m);
  t.match(await ctl('health'), { status: EXIT.ok, stdout: 'health: ok\n' });
  t.match((await ctl('metrics')).stdout, /^vhost_rngd_device_requests_total\{device="rng0"\} 20$/m);
  vm.close();
});

await t.test('health for scripts: degraded is 1, failing is 2, with the reasons', async (t) => {
  const degraded = await startAsked(t, [
    '--allow-test-sources',
    '--source=file:/dev/zero',
    '--source=random',
  ]);
  await degraded.daemon.waitForLog(/source_failed/, LOG_MS);
  await degraded.daemon.waitForLog(/health is degraded/, LOG_MS);
  t.match(await degraded.ctl('health'), {
    status: EXIT.degraded,
    stdout: /^health: degraded\n {2}source file:\/dev\/zero is failed: /,
  });
  t.match(await degraded.ctl('health', '--json'), {
    status: EXIT.degraded,
    stdout: /^\{"status":"degraded"/,
  });
  t.match(await degraded.ctl('sources', 'enable', 'file:/dev/zero'), {
    stdout: 'tried again: file:/dev/zero\n',
  });
  const failing = await startAsked(t, ['--allow-test-sources', '--source=file:/dev/zero']);
  await failing.daemon.waitForLog(/source_failed/, LOG_MS);
  t.match(await failing.ctl('health'), { status: EXIT.failing, stdout: /^health: failing\n/ });
});

await t.test('set changes what it names and nothing else, at once, for the guest that runs', async (t) => {
  const { path, ctl } = await startAsked(t, ['--max-bytes=640', '--period=3600000']);
  const vm = VirtualMachine.start(path);
  for (let i = 0; i < 10; i++) t.equal(vm.request(64).length, 64);
  vm.ring.request(0, 0x40000n, 64);
  vm.frontend.kickRing();
  t.match(await ctl('device', 'rng0'), { stdout: /held: limit/ });
  t.match(await ctl('set', 'rng0', '--max-bytes', '704'), {
    status: EXIT.ok,
    stdout: /^rng0: limit 704 B \/ 3,?600 s/,
  });
  t.equal(vm.frontend.waitUsed(vm.ring, 1)[0]?.length, 64, 'what was held is served');
  t.match(await ctl('set', 'rng0', '--weight', '7', '--source', 'random', '--burst-bytes=64'), {
    stdout: /limit 704 B .*\+64 B, weight 7, sources random:\/dev\/random/,
  });
  t.match(await ctl('set', 'rng0', '--no-limit'), { stdout: /limit none, weight 7/ });
  t.match(await ctl('set', 'rng0', '--daemon-sources', '--json'), { stdout: /"ownSources":false/ });
  t.match(await ctl('pause', 'rng0'), { stdout: /, paused\n$/ });
  vm.ring.request(0, 0x40000n, 64);
  vm.frontend.kickRing();
  t.match(await ctl('devices'), { stdout: /^rng0 +paused/m });
  await ctl('resume', 'rng0');
  t.equal(vm.frontend.waitUsed(vm.ring, 1)[0]?.length, 64);
  vm.close();
});

await t.test('add, qemu, libvirt and remove', async (t) => {
  const { folder, ctl } = await startAsked(t);
  const socket = join(folder, "it's, new.sock");
  t.match(await ctl('add', 'web3', socket, '--max-bytes=4096', '--period=1000', '--connections=2'), {
    status: EXIT.ok,
    stdout: /^device +web3$[^]*4\.00 KiB \/ 1 s$[^]*2 at a time$/m,
  });
  const vm = VirtualMachine.start(socket);
  t.equal(vm.request(64).length, 64);
  const qemu = await ctl('qemu', 'web3');
  const words = spawnSync(
    'sh',
    ['-c', `printf '%s\\n' ${qemu.stdout.replaceAll('qemu-system-x86_64', 'true')}`],
    {
      encoding: 'utf8',
    },
  ).stdout.split('\n');
  t.ok(
    words.includes(`socket,id=vhost-rngd,path=${socket.replaceAll(',', ',,')}`),
    'a shell reads the path back, and QEMU its commas',
  );
  const libvirt = await ctl('libvirt', 'web3');
  t.match(libvirt.stdout, /<source type='memfd'\/>\n {2}<access mode='shared'\/>/);
  t.match(libvirt.stdout, /path=[^']*it&apos;s,, new\.sock'\/>/);
  t.match(libvirt.stderr, /local\/abstractions\/libvirt-qemu/);
  t.match(await ctl('remove', 'web3'), { status: EXIT.ok, stdout: 'web3 is removed\n' });
  t.equal(vm.frontend.receive(), undefined, 'its guest is disconnected');
  t.notOk(existsSync(socket));
  vm.close();
});

await t.test('sources are added, put in order and removed', async (t) => {
  const { ctl } = await startAsked(t);
  t.match(await ctl('sources', 'add', 'getrandom', '--position', '0'), { stdout: 'getrandom is added\n' });
  t.match((await ctl('sources')).stdout, /^getrandom [^]*^random:/m);
  t.match((await ctl('sources', 'order', 'random', 'getrandom')).stdout, /^random:[^]*^getrandom /m);
  t.match(await ctl('sources', 'remove', 'random:/dev/random'), {
    stdout: 'random:/dev/random is removed\n',
  });
  t.match(await ctl('sources', 'remove', 'getrandom'), {
    status: EXIT.refused,
    stderr: /expected another source/,
  });
});

await t.test('reload says what has changed; a broken file changes nothing', async (t) => {
  const folder = temporaryFolder(t);
  const at = (name: string): string => join(folder, name);
  const write = (more: string): void =>
    writeFileSync(
      at('config'),
      `[[device]]\nname = "a"\nsocket-path = "${at('a.sock')}"\n${more}\n[control]\nsocket = "${at('c.sock')}"\n`,
    );
  write('');
  const daemon = await startDaemon([`--config=${at('config')}`]);
  t.teardown(() => daemon.kill());
  await daemon.waitForLog(/\[listening\]/, LOG_MS);
  const ctl = (...words: string[]): Promise<CtlRun> => runCtl(['--control-socket', at('c.sock'), ...words]);
  t.match(await ctl('reload'), { stdout: 'nothing has changed\n' });
  write('weight = 5\nmem-slots = 3');
  t.match(await ctl('reload'), {
    stdout: 'changed: device a: weight 5\nneeds a restart: device a: mem-slots\n',
  });
  write('weight = -1');
  t.match(await ctl('reload'), {
    status: EXIT.refused,
    stderr: /config:4: .*weight: expected an integer from 1 to 1000/,
  });
  t.match(await ctl('device', 'a', '--json'), { stdout: /"weight":5/ });
});

/** A run of `events`, read as it goes. */
function followEvents(args: readonly string[]) {
  const child = spawn(process.execPath, [CTL, 'events', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  const run = { child, stdout: '', stderr: '', ended: once(child, 'close') };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (run.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (run.stderr += text));
  return run;
}

await t.test('events: a line for each, or the JSON, until the daemon ends or Ctrl-C', async (t) => {
  const { path, control, daemon } = await startAsked(t);
  const text = followEvents(['--control-socket', control]);
  const json = followEvents(['--control-socket', control, '--json']);
  // Something happens until both listen.
  const listening = await eventually(() => {
    VirtualMachine.start(path).close();
    return text.stdout.includes('[disconnected]') && json.stdout.includes('"disconnected"');
  }, LOG_MS);
  t.ok(listening);
  json.child.kill('SIGINT');
  t.same(await json.ended, [EXIT.ok, null]);
  t.match(json.stdout, /^\{"level":"info",.*"code":"\w+".*\}\n/);
  await daemon.stop();
  t.same(await text.ended, [EXIT.unavailable, null], 'a script knows that there will be no more');
  t.match(text.stdout, /^\d\d:\d\d:\d\d info rng0: a front-end has connected .*\[connected\]$/m);
  t.match(text.stdout, /\[stopping\]\n$/);
  t.match(text.stderr, /the end of the daemon/);
});

/** What is wrong, the command, how it ends and what it says. */
const MISTAKES: readonly (readonly [string, readonly string[], number, RegExp])[] = [
  [
    'a command that is not there',
    ['statu'],
    EXIT.usage,
    /unknown command 'statu'\n\(Did you mean status\?\)/,
  ],
  ['no command', [], EXIT.usage, /^Usage: vhost-rngctl/m],
  [
    'an option that is not there',
    ['status', '--jsn'],
    EXIT.usage,
    /unknown option '--jsn'\n\(Did you mean --json\?\)/,
  ],
  ['an argument too few', ['set'], EXIT.usage, /missing required argument 'name'/],
  ['an argument too many', ['status', 'x'], EXIT.usage, /too many arguments/],
  ['no number', ['set', 'rng0', '--weight', 'x'], EXIT.usage, /--weight <n>' argument 'x' is invalid/],
  ['nothing to set', ['set', 'rng0'], EXIT.usage, /expected something to set/],
  [
    'a period without a limit',
    ['set', 'rng0', '--period', '5'],
    EXIT.usage,
    /expected --max-bytes with --period/,
  ],
  ['a limit and none', ['set', 'rng0', '--max-bytes=5', '--no-limit'], EXIT.usage, /--no-limit, got both/],
  [
    'a value that cannot be',
    ['set', 'rng0', '--weight', '0'],
    EXIT.refused,
    /weight: expected an integer from 1 to 1000/,
  ],
  [
    'a number below all',
    ['set', 'rng0', '--max-bytes=-1'],
    EXIT.usage,
    /--max-bytes.* expected an integer from 1\b/,
  ],
  ['a device that is not there', ['device', 'nope'], EXIT.refused, /got nope: there are rng0, rng1/],
  ['a name that is taken', ['add', 'rng0', '/tmp/x.sock'], EXIT.refused, /expected a new name, got rng0/],
  ['a path that is relative', ['add', 'new', 'x.sock'], EXIT.refused, /socket: expected an absolute path/],
  ['a source that is none', ['sources', 'add', 'nonsense'], EXIT.refused, /expected random\[:PATH\]/],
  ['a shell that is none', ['completion', 'fish'], EXIT.usage, /Allowed choices are bash, zsh/],
];

await t.test('mistakes are told with the fix, by one status for each kind', async (t) => {
  const { ctl } = await startAsked(t);
  for (const [title, args, status, message] of MISTAKES) {
    const run = await ctl(...args);
    t.equal(run.status, status, title);
    t.match(run.stderr, message, title);
    t.equal(run.stdout, '', `${title}: nothing on standard output`);
    t.notMatch(run.stderr, /\n\s+at /, `${title}: no stack`);
  }
});

await t.test('no daemon, a socket that nobody serves, one that is not for this user', async (t) => {
  const folder = temporaryFolder(t);
  const control = join(folder, 'c.sock');
  t.match(await runCtl(['status', '--control-socket', control]), {
    status: EXIT.unavailable,
    stderr: /got nothing there: start vhost-rngd with --control-socket=/,
  });
  const daemon = await startDaemon([
    `--control-socket=${control}`,
    `--socket-path=${join(folder, 'a.sock')}`,
  ]);
  t.teardown(() => daemon.kill());
  if (process.getuid?.() === 0) {
    chmodSync(folder, 0o755);
    t.match(await runCtl(['status', '--control-socket', control], { uid: 65534, gid: 65534 }), {
      status: EXIT.permission,
      stderr: /expected a control socket that \S+ may open.*: be in its group \(root\)/,
    });
    chmodSync(control, 0o666);
    t.match(await runCtl(['status', '--control-socket', control], { uid: 65534, gid: 65534 }), {
      status: EXIT.ok,
    });
    t.match(await runCtl(['pause', 'a', '--control-socket', control], { uid: 65534, gid: 65534 }), {
      status: EXIT.permission,
      stderr: /\S/,
    });
  } else {
    t.pass('SKIPPED LOUDLY: only root can become another user');
  }
  await daemon.kill();
  t.match(await runCtl(['status', '--control-socket', control]), {
    status: EXIT.unavailable,
    stderr: /got a socket that nobody serves: start vhost-rngd/,
  });
  t.match(await runCtl(['status', '--control-socket', folder]), { status: EXIT.unavailable });
});

await t.test('a reader that has gone ends it quietly', async (t) => {
  const { control } = await startAsked(t);
  // `true` has ended long before anything is written.
  const run = spawnSync(
    'bash',
    ['-c', `"${process.execPath}" "${CTL}" metrics | true; echo "\${PIPESTATUS[0]}"`],
    {
      encoding: 'utf8',
      env: { ...process.env, NODE_OPTIONS: '', VHOST_RNGD_CONTROL_SOCKET: control },
    },
  );
  t.equal(run.stdout, '0\n');
  t.equal(run.stderr, '');
});

/** A folder with the program under its name, for shells to find. */
function binFolder(t: Test): string {
  const bin = join(temporaryFolder(t), 'bin');
  mkdirSync(bin);
  writeFileSync(join(bin, 'vhost-rngctl'), `#!/bin/sh\nexec "${process.execPath}" "${CTL}" "$@"\n`, {
    mode: 0o755,
  });
  return bin;
}

/** How bash itself splits a line: at blanks, and at = and :, which are words of their own. */
function bashWords(line: string): string {
  const words = line
    .split(/ +/)
    .flatMap((word) => word.split(/([=:])/))
    .filter((word, i, all) => word !== '' || i === all.length - 1);
  return `COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1};`;
}

/** So much of the last word stands before what bash takes for the word that is completed. */
function heldByBash(words: readonly string[]): number {
  const last = words.at(-1) ?? '';
  return Math.max(last.lastIndexOf('='), last.lastIndexOf(':')) + 1;
}

/** A line that is begun, and what Tab offers. */
const COMPLETED: readonly (readonly [readonly string[], readonly string[]])[] = [
  [['reso'], []],
  [['res'], ['resume']],
  [
    ['sources', ''],
    ['add', 'enable', 'order', 'remove', 'test'],
  ],
  [
    ['set', 'rng'],
    ['rng0', 'rng1'],
  ],
  [['add', ''], []],
  [['set', 'rng0', '--source', 'ra'], ['random:/dev/random']],
  [
    ['add', 'x', 'y', '--memory', ''],
    ['guard', 'require-sealed', 'trust'],
  ],
  [
    ['completion', ''],
    ['bash', 'zsh'],
  ],
  [['set', 'rng0', '--we'], ['--weight']],
  [['set', 'rng0', '--source=ra'], ['--source=random:/dev/random']],
  [['sources', 'order', 'random', 'ran'], ['random:/dev/random']],
  [['sources', 'remove', 'random:/dev/ra'], ['random:/dev/random']],
];

await t.test('completion in a real bash and a real zsh', async (t) => {
  const { control, ctl } = await startAsked(t);
  const env = {
    PATH: `${binFolder(t)}:${process.env['PATH'] ?? ''}`,
    VHOST_RNGD_CONTROL_SOCKET: control,
    HOME: temporaryFolder(t),
  };
  t.match((await ctl('completion', 'bash')).stdout, /complete .*-F _vhost_rngctl vhost-rngctl/);
  for (const [words, offered] of COMPLETED) {
    const line = ['vhost-rngctl', ...words];
    const quoted = line.map((word) => `'${word}'`).join(' ');
    const bash = spawnSync(
      'bash',
      [
        '--norc',
        '-c',
        `eval "$(vhost-rngctl completion bash)"; COMP_LINE="${line.join(' ')}"; COMP_POINT=\${#COMP_LINE}; ${bashWords(line.join(' '))} _vhost_rngctl; printf '%s\\n' "\${COMPREPLY[@]}"`,
      ],
      { encoding: 'utf8', env },
    );
    t.equal(bash.stderr, '', `bash: ${words.join(' ')}`);
    t.same(
      bash.stdout.split('\n').filter((word) => word !== ''),
      offered.map((word) => word.slice(heldByBash(words))),
      `bash: ${words.join(' ')}`,
    );
    // compadd is what zsh's own completion calls; here it prints what it is given.
    const zsh = spawnSync(
      'zsh',
      [
        '-f',
        '-c',
        `compdef() { : }; compadd() { shift; print -l -- \${(P)1} }; _files() { : }; eval "$(vhost-rngctl completion zsh)"; words=(${quoted}); CURRENT=${line.length}; _vhost_rngctl`,
      ],
      { encoding: 'utf8', env },
    );
    t.equal(zsh.error, undefined, 'zsh is there (apt-get install zsh)');
    t.equal(zsh.stderr, '', `zsh: ${words.join(' ')}`);
    t.same(
      zsh.stdout.split('\n').filter((word) => word !== ''),
      offered,
      `zsh: ${words.join(' ')}`,
    );
  }
});
