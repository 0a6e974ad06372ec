// `npm run bench:restart`: how long a real guest waits when its daemon is killed or restarted under a real systemd, and that it loses nothing.
//
// The daemon is the service of a Debian 12 in a container, with the units as they are; QEMU runs beside it, and its guest reads /dev/hwrng
// without pause. A pause is the longest time without a byte in the guest's own stream: what an emulated guest takes itself is in it.
import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { bootGuest } from '../support/guest/guest.js';
import { outputOf } from '../support/guest/program.js';
import { trixieQemu } from '../support/guest/trixie-qemu.js';
import { temporaryFolder } from '../support/rng-daemon.js';
import { bootInstalled } from '../support/systemd/installed.js';
import { interrupt, type Interruption } from '../support/systemd/interruptions.js';

const RNG_SOCKET = '/run/vhost-rngd/rng.sock';
const USAGE = `npm run bench:restart -- [--kills=200] [--restarts=50] [--twice=20] [--qemu=PROGRAM|trixie]

--twice: kills of which each is followed by one of the process that is just starting
--qemu:  trixie is the QEMU of Debian 13, which is fetched once; default qemu-system-x86_64
`;

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '200' },
    restarts: { type: 'string', default: '50' },
    twice: { type: 'string', default: '20' },
    qemu: { type: 'string', default: 'qemu-system-x86_64' },
    help: { type: 'boolean', default: false },
  },
});

if (values.help) process.stdout.write(USAGE);
else await measure();

async function measure(): Promise<void> {
  const ends: (() => unknown)[] = [];
  const scope = { teardown: (end: () => unknown) => ends.unshift(end) };
  try {
    const emulator = values.qemu === 'trixie' ? await trixieQemu(temporaryFolder(scope)) : values.qemu;
    const container = await bootInstalled(scope);
    await container.outputOf('systemctl', 'enable', '--now', 'vhost-rngd.socket');
    const devices = [{ kind: 'vhost-user', socketPath: container.path(RNG_SOCKET) }] as const;
    const guest = await bootGuest({ emulator, devices });
    ends.unshift(() => guest.kill());
    const qemu = (await outputOf(emulator, ['--version'])).toString().split('\n')[0] ?? '';
    const systemd = (await container.outputOf('systemctl', '--version')).split('\n')[0] ?? '';
    process.stdout.write(
      `${qemu}; ${systemd}; Linux ${release()}, node ${process.version}, ${cpus().length} CPUs\n`,
    );
    const wanted = inRandomOrder([
      ...times(values.kills, 'SIGKILL'),
      ...times(values.restarts, 'restart'),
      ...times(values.twice, 'SIGKILL twice'),
    ]);
    const { pausesMs, bytes, repeatedBlocks } = await interrupt(guest, container, wanted, (done) => {
      if (done % 10 === 0) process.stderr.write(`${done} of ${wanted.length}\n`);
    });
    process.stdout.write(
      '\n| interruption | times | pause p50 ms | p99 ms | longest ms |\n| --- | --- | --- | --- | --- |\n',
    );
    for (const [how, pauses] of pausesMs) process.stdout.write(`${row(how, pauses)}\n`);
    process.stdout.write(
      `\n${bytes} bytes read, ${repeatedBlocks} blocks of 16 bytes came twice, the guest reads on\n`,
    );
  } finally {
    for (const end of ends) await end();
  }
}

function times(count: string, how: Interruption): Interruption[] {
  return Array.from({ length: Number(count) }, () => how);
}

function inRandomOrder<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, order: Math.random() }))
    .sort((a, b) => a.order - b.order)
    .map(({ item }) => item);
}

function row(how: string, pauses: readonly number[]): string {
  const sorted = [...pauses].sort((a, b) => a - b);
  const quantile = (q: number): string => (sorted[Math.ceil(q * sorted.length) - 1] ?? NaN).toFixed(0);
  return `| ${how} | ${sorted.length} | ${quantile(0.5)} | ${quantile(0.99)} | ${quantile(1)} |`;
}
