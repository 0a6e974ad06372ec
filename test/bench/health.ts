// `node dist/test/bench/health.js [MiB]`: what the health tests cost, and how often good bytes alarm, measured on this run.
//
// Each test, all of them, and read(2) of the same bytes from /dev/random run in turn in each round; medians are printed,
// since this machine and most others are noisy. Then that many MiB of /dev/random, 128 if not told, go through all tests.
import { closeSync, openSync } from 'node:fs';
import { FIPS_BLOCK_BYTES, passesFips } from '../../daemon/entropy/fips-140-2.js';
import {
  BLOCK_BYTES,
  HealthCount,
  HealthTests,
  Verdict,
  WINDOW_BYTES,
} from '../../daemon/entropy/health-tests.js';
import { BLOCK_WORDS, RepeatedBlocks } from '../../daemon/entropy/repeated-blocks.js';
import { Mapping } from '../../shared-memory/mapping.js';
import * as libc from '../../shared-memory/libc.js';

const ROUNDS = 41;
const BLOCKS = 400;
const TOTAL_BYTES = BLOCKS * BLOCK_BYTES;
const MIB = 2 ** 20;

const { mapping } = Mapping.forSecrets(TOTAL_BYTES);
const bytes = mapping.view(0, TOTAL_BYTES);
const memory = { bytes, words: new Int32Array(bytes.buffer, bytes.byteOffset, TOTAL_BYTES / 4) };
const device = openSync('/dev/random', 'r');

/** One read(2) for each block, as the daemon reads. */
function readAll(): void {
  for (let offset = 0; offset < TOTAL_BYTES; offset += BLOCK_BYTES) {
    const got = libc.read(device, mapping.address + offset, BLOCK_BYTES);
    if (got !== BLOCK_BYTES) throw new Error(`read of ${BLOCK_BYTES} bytes gave ${got}`);
  }
}

/** What runs over all bytes in a round. */
interface Contender {
  readonly name: string;
  readonly run: () => void;
  readonly nsPerByte: number[];
}

/** This process's CPU time: others share the machine. */
function cpuNs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1000;
}

function windows(tests: HealthTests): void {
  for (let offset = 0; offset < TOTAL_BYTES; offset += WINDOW_BYTES) tests.testWindow(memory, offset);
}

function contenders(): Contender[] {
  const [windowTests, allTests] = [new HealthTests({ minEntropy: 8 }), new HealthTests({ minEntropy: 8 })];
  const repeated = new RepeatedBlocks();
  const runs: Record<string, () => void> = {
    'read(2) from /dev/random': readAll,
    'RCT, APT, repeated blocks': () => {
      windows(windowTests);
    },
    'of it repeated blocks': () => {
      for (let word = 0; word < TOTAL_BYTES / 4; word += BLOCK_WORDS) repeated.seenBefore(memory.words, word);
    },
    'FIPS 140-2': () => {
      for (let offset = 0; offset < TOTAL_BYTES; offset += BLOCK_BYTES) passesFips(memory, offset);
    },
    'all, as a source is tested': () => {
      for (let block = 0; block < TOTAL_BYTES; block += BLOCK_BYTES) {
        for (let offset = block; offset < block + BLOCK_BYTES; offset += WINDOW_BYTES) {
          allTests.testWindow(memory, offset);
        }
        allTests.scoreBlock(memory, block);
        allTests.blockVerdict();
      }
    },
  };
  return Object.entries(runs).map(([name, run]) => ({ name, run, nsPerByte: [] }));
}

function measure(): void {
  const all = contenders();
  const warmUps = 5;
  for (let round = -warmUps; round < ROUNDS; round++) {
    // New bytes each time: a branch predictor learns a megabyte by heart.
    for (const { run, nsPerByte } of all) {
      const before = cpuNs();
      run();
      const ns = cpuNs() - before;
      if (round >= 0) nsPerByte.push(ns / TOTAL_BYTES);
    }
  }
  for (const { name, nsPerByte } of all) {
    nsPerByte.sort((a, b) => a - b);
    const median = nsPerByte[ROUNDS >> 1] ?? 0;
    console.log(
      `${name.padEnd(28)}${median.toFixed(3)} ns/byte ${(1000 / median).toFixed(0).padStart(6)} MB/s`,
    );
  }
}

/** False alarms of good bytes beside what theory expects. */
function countAlarms(mebibytes: number): void {
  const tests = new HealthTests({ minEntropy: 8 });
  let notPassed = 0;
  let badBlockVerdicts = 0;
  const rounds = Math.ceil((mebibytes * MIB) / TOTAL_BYTES);
  for (let round = 0; round < rounds; round++) {
    readAll();
    for (let block = 0; block < TOTAL_BYTES; block += BLOCK_BYTES) {
      for (let offset = block; offset < block + BLOCK_BYTES; offset += WINDOW_BYTES) {
        if (tests.testWindow(memory, offset) === Verdict.Pass) continue;
        notPassed++;
        console.log(`not passed: ${tests.reason}`);
      }
      tests.scoreBlock(memory, block);
      if (tests.blockVerdict() !== Verdict.Pass) badBlockVerdicts++;
    }
  }
  const total = rounds * TOTAL_BYTES;
  const count = (index: HealthCount): number => tests.counts[index] ?? 0;
  console.log(`\n${(total / MIB).toFixed(0)} MiB of /dev/random, ${count(HealthCount.Windows)} windows:`);
  // A run of five begins at any byte: 255/256 * 2^-32.
  console.log(
    `repetition count   ${count(HealthCount.RepetitionAlarms)} (expected ${(total * 2 ** -32).toFixed(3)})`,
  );
  console.log(`adaptive proportion ${count(HealthCount.AdaptiveAlarms)}`);
  console.log(
    `repeated blocks     ${count(HealthCount.RepeatedBlocks)} (expected ${(total / 64) * 2 ** -64})`,
  );
  console.log(`windows not passed  ${notPassed}, block verdicts not passed ${badBlockVerdicts}`);
  const [failures, blocks] = [count(HealthCount.FipsFailures), count(HealthCount.FipsBlocks)];
  console.log(
    `FIPS 140-2          ${failures} of ${blocks} blocks of ${FIPS_BLOCK_BYTES} bytes: ${((100 * failures) / blocks).toFixed(4)} %`,
  );
}

measure();
countAlarms(Number(process.argv[2] ?? 128));
closeSync(device);
