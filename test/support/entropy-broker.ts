// An EGD server that none of us wrote: eb_client_egd of Debian's entropybroker, with the broker that it gets its bytes from and
// a feeder for that. The broker's configuration is what it takes to run on the loopback address, without its web server.
import { randomBytes } from 'node:crypto';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'tap';
import { ChildProcess } from './guest/child-process.js';
import { waitUntil } from './guest/deadline.js';
import { findProgram } from './guest/program.js';
import { temporaryFolder } from './rng-daemon.js';

const PROGRAMS = ['entropy_broker', 'eb_server_push_file', 'eb_client_egd'] as const;
/** The broker asks its clients to come again after seconds, and starts with empty pools. */
const START_TIMEOUT_MS = 60_000;
const FED_BYTES = 3_000_000;

export function hasEntropyBroker(): boolean {
  return PROGRAMS.every((program) => findProgram(program) !== undefined);
}

/** A free TCP port of the loopback address. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** The running broker with its feeder; an EGD server can be started and ended. */
export class EntropyBroker {
  readonly socketPath: string;
  private readonly folder: string;
  private readonly port: number;
  private readonly children: ChildProcess[] = [];
  private server: ChildProcess | undefined;

  private constructor(folder: string, port: number) {
    this.folder = folder;
    this.port = port;
    this.socketPath = join(folder, 'egd.sock');
  }

  static async start(t: Pick<Test, 'teardown'>): Promise<EntropyBroker> {
    const broker = new EntropyBroker(temporaryFolder(t), await freePort());
    t.teardown(() => broker.close());
    broker.writeFiles();
    broker.run('entropy_broker', ['-c', join(broker.folder, 'broker.conf')]);
    const data = join(broker.folder, 'data');
    // Fed first: a broker that is asked while it is fed puts its clients off for minutes.
    const feeder = broker.run('eb_server_push_file', [...broker.clientArguments(), '-f', data]);
    await feeder.waitExit(START_TIMEOUT_MS);
    await broker.startServer();
    return broker;
  }

  private writeFiles(): void {
    const users = join(this.folder, 'users.txt');
    writeFileSync(users, 'tester|secret|100000000\n', { mode: 0o600 });
    writeFileSync(join(this.folder, 'auth'), 'tester\nsecret\n', { mode: 0o600 });
    writeFileSync(join(this.folder, 'data'), randomBytes(FED_BYTES));
    const settings = {
      // The broker knows addresses of IPv6 only.
      listen_adapter: '::ffff:127.0.0.1',
      listen_port: this.port,
      // Room for all that is fed: what does not fit in memory the broker would leave behind in /var/cache.
      max_number_of_mem_pools: 4096,
      pool_size_in_bytes: 2048,
      default_max_get_bps: 100_000_000,
      default_max_bits_per_interval: 1_600_000_000,
      max_get_put_size: 32_768,
      stirrer_type: 'aes',
      hash_type: 'sha512',
      stream_cipher: '3des',
      mac_hasher: 'md5',
      hash_hasher: 'sha512',
      bitcount_estimator: 'shannon',
      ignore_rngtest_fips140: 1,
      ignore_rngtest_scc: 1,
      allow_prng: 1,
      users,
    };
    const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}\n`);
    writeFileSync(join(this.folder, 'broker.conf'), lines.join(''));
  }

  private clientArguments(): string[] {
    return ['-I', `localhost:${this.port}`, '-X', join(this.folder, 'auth')];
  }

  private run(program: (typeof PROGRAMS)[number], args: readonly string[]): ChildProcess {
    const titles = { process: program, stdout: `${program} output`, stderr: `${program} errors` };
    const child = new ChildProcess(titles, program, ['-n', ...args]);
    this.children.push(child);
    return child;
  }

  /** Starts eb_client_egd; returns when its socket is there. */
  async startServer(): Promise<void> {
    // It does not replace the socket that it left behind.
    rmSync(this.socketPath, { force: true });
    const server = this.run('eb_client_egd', [...this.clientArguments(), '-d', this.socketPath]);
    this.server = server;
    await waitUntil(
      () => existsSync(this.socketPath),
      START_TIMEOUT_MS,
      () => `expected the socket of eb_client_egd\n${server.stdout.quote()}\n${server.stderr.quote()}`,
    );
  }

  async killServer(): Promise<void> {
    await this.server?.kill();
  }

  async close(): Promise<void> {
    await Promise.all(this.children.map((child) => child.kill()));
  }
}
