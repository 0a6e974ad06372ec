// Commands about sources: the daemon's, and any that can be tried here.
import { existsSync } from 'node:fs';
import { type Command, InvalidArgumentError } from 'commander';
import * as v from 'valibot';
import { Fault } from '../../protocol/fault.js';
import { SourceShape, SourcesShape } from '../control/shapes.js';
import { checkSources } from '../entropy/source-check.js';
import { isKernelSource } from '../entropy/raw-source.js';
import { parseSourceSpec, type SourceSpec } from '../entropy/source-spec.js';
import { ASCII, clipped } from './cells.js';
import { enableSources, integerFrom } from './change-commands.js';
import { ExitStatus } from './exit-status.js';
import { listSources, type Run } from './look-commands.js';
import { type Output, printable, toned } from './output.js';
import { type Outcome, type Session, show } from './session.js';
import { type SourceTest, testSource } from './source-test.js';
import { sourceTableText } from './status-view.js';
import { judgeSource, type SourceVerdict } from './source-verdict.js';
import { bytesText, countText, rateText } from '../units.js';

const DEFAULT_TEST_SECONDS = 5;

interface TestOptions {
  readonly seconds: number;
  readonly bytes?: number;
}

/** Adds them to the program. */
export function addSourceCommands(program: Command, run: Run): void {
  const sources = program
    .command('sources')
    .description('all sources of entropy, a line each, best first')
    .action(run(listSources));
  sources
    .command('enable')
    .argument('[spec]', 'only this one')
    .description('try failed sources again, also those that have failed for good')
    .action(run(enableSources));
  const add = sources
    .command('add')
    .argument('<source>', 'as --source of vhost-rngd has it')
    .option('--position <n>', 'its place in the order of preference, 0 for the first', integerFrom(0))
    .description('draw from a source more; devices with sources of their own do not')
    .action(
      run((session, source) => {
        const { position } = add.opts<{ position?: number }>();
        const wanted = { source, ...(position !== undefined && { position }) };
        return show(
          session,
          SourceShape,
          ['POST', '/v1/sources', wanted],
          ({ spec }) => `${spec} is added\n`,
        );
      }),
    );
  sources
    .command('remove')
    .argument('<spec>')
    .description('draw from a source no more')
    .action(
      run((session, spec = '') =>
        show(
          session,
          v.strictObject({}),
          ['DELETE', `/v1/sources/${encodeURIComponent(spec)}`],
          () => `${spec} is removed\n`,
        ),
      ),
    );
  sources
    .command('order')
    .argument('<spec...>', 'all that is to be drawn from, best first')
    .description('draw from these sources, in this order, and from no others')
    .action(
      run((session, ...specs) =>
        show(session, SourcesShape, ['PUT', '/v1/sources', { sources: specs }], (found) =>
          sourceTableText(session.output, found.sources),
        ),
      ),
    );
  const test = sources
    .command('test')
    .argument('[spec...]', "sources as --source has them; by default the daemon's, or this machine's")
    .option('--seconds <n>', 'try each for so long', positive, DEFAULT_TEST_SECONDS)
    .option('--bytes <n>', 'and for so many bytes at most', positive)
    .description(
      'read sources here, in this process, as fast as they go: rate, and what the health tests say; ' +
        'bytes of a hardware generator that are read here are taken from the daemon',
    )
    .action(run((session, ...specs) => testSources(session, specs, test.opts<TestOptions>())));
}

function positive(text: string): number {
  const value = integerFrom(1)(text);
  if (value === 0) throw new InvalidArgumentError('expected 1 or more.');
  return value;
}

async function testSources(
  session: Session,
  texts: readonly string[],
  options: TestOptions,
): Promise<Outcome> {
  const specs = await wantedSpecs(session, texts);
  if (specs instanceof Fault) return specs;
  const { output, until } = session;
  const end = { seconds: options.seconds, bytes: options.bytes ?? Infinity, until };
  const tests: Tested[] = [];
  for (const spec of specs) {
    if (until.aborted) break;
    const test = await testOne(spec, end, output);
    tests.push(test);
    if (!session.json) output.out(verdictText(output, test));
  }
  if (session.json) output.out(`${JSON.stringify({ tests })}\n`);
  return tests.every(({ passes }) => passes) ? ExitStatus.Ok : ExitStatus.Degraded;
}

/** A test and what it comes to. */
type Tested = SourceTest & SourceVerdict;

async function testOne(
  spec: SourceSpec,
  end: Parameters<typeof testSource>[1],
  output: Output,
): Promise<Tested> {
  const refused = await checkSources([spec]);
  const test =
    refused === undefined
      ? await testSource(spec, end, (now) => showProgress(output, now, end))
      : untested(spec, refused.message);
  if (output.columns !== undefined) output.err('\r\u001b[K');
  return { ...test, ...judgeSource(test, isKernelSource(spec)) };
}

function untested(spec: SourceSpec, problem: string): SourceTest {
  return {
    spec: spec.text,
    seconds: 0,
    bytes: 0,
    bytesPerSecond: 0,
    silentSeconds: 0,
    windows: 0,
    alarms: { repetition: 0, adaptive: 0, permanent: 0 },
    repeatedBlocks: 0,
    fips: { blocks: 0, failures: 0 },
    problem,
  };
}

/** One line that is written over itself, on a terminal only. */
function showProgress(
  output: Output,
  test: SourceTest,
  { seconds, bytes }: { seconds: number; bytes: number },
): void {
  if (output.columns === undefined) return;
  const most = bytes === Infinity ? '' : ` of ${bytesText(bytes)}`;
  const line = `${printable(test.spec)}  ${test.seconds.toFixed(1)} of ${seconds} s  ${bytesText(test.bytes)}${most}  ${rateText(test.bytesPerSecond)}`;
  output.err(`\r\u001b[K${clipped(line, output.columns - 1, ASCII)}`);
}

const SUITABILITY_TONES = { good: 'good', slow: 'warn', unsuitable: 'bad', unknown: 'warn' } as const;

function verdictText(output: Output, test: Tested): string {
  const { spec, bytes, bytesPerSecond, windows, alarms, repeatedBlocks, fips, problem, suitability } = test;
  const verdict =
    problem === null ? toned(output, 'good', 'passes') : toned(output, 'bad', `fails: ${printable(problem)}`);
  const raised = `${countText(alarms.repetition)} repetition and ${countText(alarms.adaptive)} adaptive alarms`;
  return [
    `${toned(output, 'strong', printable(spec))}: ${verdict}`,
    `  ${bytesText(bytes)} have passed in ${test.seconds.toFixed(1)} s, ${rateText(bytesPerSecond)}`,
    `  SP 800-90B: ${countText(windows)} windows of 512 bytes, ${raised}; ${countText(repeatedBlocks)} repeated blocks`,
    `  FIPS 140-2: ${countText(fips.failures)} of ${countText(fips.blocks)} blocks fail; about one in 1,200 good ones does`,
    `  ${toned(output, SUITABILITY_TONES[suitability], suitability)}: ${test.advice}`,
    '',
  ].join('\n');
}

/** What is asked for; or the daemon's sources; or what this machine has. */
async function wantedSpecs(
  { client }: Session,
  texts: readonly string[],
): Promise<readonly SourceSpec[] | Fault> {
  const asked = texts.length > 0 ? texts : await knownSources(client);
  const specs: SourceSpec[] = [];
  for (const text of asked) {
    const spec = parseSourceSpec(text, true);
    if (spec instanceof Fault) return new Fault('request', 'usage', spec.message);
    specs.push(spec);
  }
  return specs;
}

async function knownSources(client: Session['client']): Promise<readonly string[]> {
  const answer = await client.json(SourcesShape, ['GET', '/v1/sources']);
  if (!(answer instanceof Fault))
    return answer.value.sources.map(({ spec, minEntropy }) =>
      minEntropy === 8 ? spec : `${spec},min-entropy=${minEntropy}`,
    );
  return ['random', ...(existsSync('/dev/hwrng') ? ['hwrng'] : [])];
}
