// `npm run bench`: requests per second, round-trip times and the back-end's CPU per request, measured on this run.
//
// Every scenario runs in several rounds, the back-ends in turn within each round, and prints medians: this machine
// and most others are noisy. `npm run bench -- --rounds=5 --scenario=depth` picks; see --help.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type BackEndKind, compileYardstick, residentKib, startBackEnd } from './back-ends.js';
import { Load } from './load.js';

/** One line of the table. */
interface Scenario {
  readonly name: string;
  readonly devices: number;
  readonly depth: number;
  readonly bytes: number;
  /** Both ends on one CPU shows what the work costs; on two CPUs mostly the wake-up of an idle one. */
  readonly oneCpu: boolean;
  readonly busyPollUs: number;
  readonly requests: number;
}

const SCENARIOS: readonly Scenario[] = [
  {
    name: 'depth 1, 64 B, one CPU',
    devices: 1,
    depth: 1,
    bytes: 64,
    oneCpu: true,
    busyPollUs: 0,
    requests: 200_000,
  },
  {
    name: 'depth 1, 64 B, two CPUs',
    devices: 1,
    depth: 1,
    bytes: 64,
    oneCpu: false,
    busyPollUs: 0,
    requests: 60_000,
  },
  {
    name: 'depth 1, 64 B, two CPUs, polled',
    devices: 1,
    depth: 1,
    bytes: 64,
    oneCpu: false,
    busyPollUs: 50,
    requests: 200_000,
  },
  {
    name: 'depth 16, 64 B, one CPU',
    devices: 1,
    depth: 16,
    bytes: 64,
    oneCpu: true,
    busyPollUs: 0,
    requests: 400_000,
  },
  {
    name: 'depth 4, 4 KiB, one CPU',
    devices: 1,
    depth: 4,
    bytes: 4096,
    oneCpu: true,
    busyPollUs: 0,
    requests: 100_000,
  },
  {
    name: '16 devices, depth 1, 64 B, one CPU',
    devices: 16,
    depth: 1,
    bytes: 64,
    oneCpu: true,
    busyPollUs: 0,
    requests: 300_000,
  },
  {
    name: '256 devices, depth 1, 64 B, one CPU',
    devices: 256,
    depth: 1,
    bytes: 64,
    oneCpu: true,
    busyPollUs: 0,
    requests: 300_000,
  },
];

/** Figures of one run. */
interface Figures {
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly servingUs: number;
  readonly cpuUs: number;
}

const WARM_UP_REQUESTS = 20_000;

async function measure(kind: BackEndKind, scenario: Scenario): Promise<Figures> {
  const backEnd = await startBackEnd(kind, { ...scenario, cpu: scenario.oneCpu ? 0 : 1 });
  try {
    const load = new Load(backEnd.sockets, { ...scenario, spin: scenario.busyPollUs > 0 });
    load.run(WARM_UP_REQUESTS);
    const cpuBefore = backEnd.cpuNs();
    const { requests, seconds, latenciesUs } = load.run(scenario.requests);
    const cpuAfter = backEnd.cpuNs();
    load.close();
    const quantile = (q: number): number => latenciesUs[Math.floor(q * (latenciesUs.length - 1))] ?? NaN;
    return {
      perSecond: requests / seconds,
      p50: quantile(0.5),
      p99: quantile(0.99),
      p999: quantile(0.999),
      servingUs: (cpuAfter.serving - cpuBefore.serving) / requests / 1000,
      cpuUs: (cpuAfter.all - cpuBefore.all) / requests / 1000,
    };
  } finally {
    await backEnd.stop();
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}

function row(scenario: string, kind: string, runs: readonly Figures[]): string {
  const of = (name: keyof Figures): number => median(runs.map((run) => run[name]));
  const cells = [
    scenario,
    kind,
    Math.round(of('perSecond')).toLocaleString('en'),
    of('p50').toFixed(1),
    of('p99').toFixed(1),
    of('p999').toFixed(1),
    of('servingUs').toFixed(2),
    of('cpuUs').toFixed(2),
  ];
  return `| ${cells.join(' | ')} |`;
}

/** Collections of garbage in the daemon during a million requests, as node's --trace-gc tells them, a line each. */
async function collections(depth: number): Promise<void> {
  const requests = 1_000_000;
  const backEnd = await startBackEnd('vhost-rngd', {
    devices: 1,
    busyPollUs: 0,
    cpu: 0,
    nodeOptions: ['--trace-gc'],
  });
  try {
    const load = new Load(backEnd.sockets, { depth, bytes: 64, spin: false });
    load.run(WARM_UP_REQUESTS);
    // The pipe is read when this thread's event loop turns.
    await new Promise((resolve) => setTimeout(resolve, 100));
    const before = backEnd.outputLines();
    load.run(requests);
    await new Promise((resolve) => setTimeout(resolve, 100));
    console.log(
      `Collections of garbage in ${requests} requests at depth ${depth}: ${backEnd.outputLines() - before}.`,
    );
    load.close();
  } finally {
    await backEnd.stop();
  }
}

/** Memory that a connected, idle device takes, with its ring running. */
async function idleMemory(): Promise<void> {
  const devices = 256;
  const backEnd = await startBackEnd('vhost-rngd', { devices, busyPollUs: 0, cpu: undefined });
  try {
    // One device in use, then none: what the data plane takes once, for any number of devices, is in the base.
    const first = new Load(backEnd.sockets.slice(0, 1), { depth: 1, bytes: 64, spin: false });
    first.run(WARM_UP_REQUESTS);
    first.close();
    const base = residentKib(backEnd.pid);
    const load = new Load(backEnd.sockets, { depth: 1, bytes: 64, spin: false });
    load.run(devices);
    const connected = residentKib(backEnd.pid);
    console.log(
      `\nIdle memory: the daemon alone with ${devices} sockets ${(base / 1024).toFixed(1)} MiB, with ${devices} connected ` +
        `devices ${(connected / 1024).toFixed(1)} MiB: ${((connected - base) / devices).toFixed(1)} KiB for each.`,
    );
    load.close();
  } finally {
    await backEnd.stop();
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '3' },
      scenario: { type: 'string', default: '' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(
      'npm run bench -- [--rounds=N] [--scenario=TEXT]   TEXT: only scenarios whose name contains it',
    );
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), 'vhost-rngd-bench-'));
  const kinds: BackEndKind[] = compileYardstick(folder) ? ['vhost-rngd', 'least-code C'] : ['vhost-rngd'];
  if (kinds.length === 1) console.log('no C compiler (cc): measuring without the yardstick');
  const rounds = Number(values.rounds);
  console.log(
    `${cpus()[0]?.model ?? 'unknown CPU'}, ${cpus().length} CPUs, Linux ${release()}, Node ${process.version}; `,
  );
  console.log(
    `medians of ${rounds} rounds, back-ends in turn; the load generator is JavaScript in every row\n`,
  );
  console.log(
    '| work | back-end | requests/s | p50 µs | p99 µs | p99.9 µs | CPU µs/request, serving thread | all threads |',
  );
  console.log('| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |');
  for (const scenario of SCENARIOS.filter(({ name }) => name.includes(values.scenario))) {
    const runs = new Map<BackEndKind, Figures[]>(kinds.map((kind) => [kind, []]));
    // The yardstick cannot poll.
    const taking = kinds.filter((kind) => scenario.busyPollUs === 0 || kind === 'vhost-rngd');
    bindThisProcess('0');
    for (let round = 0; round < rounds; round++) {
      for (const kind of taking) runs.get(kind)?.push(await measure(kind, scenario));
    }
    for (const kind of taking) console.log(row(scenario.name, kind, runs.get(kind) ?? []));
  }
  bindThisProcess(`0-${cpus().length - 1}`);
  if (values.scenario === '') {
    await idleMemory();
    bindThisProcess('0');
    for (const depth of [1, 16]) await collections(depth);
  }
  rmSync(folder, { recursive: true, force: true });
}

/** Binds every thread of the load generator to CPUs. */
function bindThisProcess(list: string): void {
  spawnSync('taskset', ['-a', '-c', '-p', list, String(process.pid)], { stdio: 'ignore' });
}

await main();
