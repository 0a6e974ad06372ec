// Commands about sources: the daemon's, and any that can be tried here.
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import * as v from 'valibot';
import { Fault } from '../../protocol/fault.js';
import { SourceShape, SourcesShape } from '../control/shapes.js';
import { checkSources } from '../entropy/source-check.js';
import { parseSourceSpec, type SourceSpec } from '../entropy/source-spec.js';
import { enableSources, integer } from './change-commands.js';
import { ExitStatus } from './exit-status.js';
import { listSources, type Run } from './look-commands.js';
import { type Output, printable, toned } from './output.js';
import { type Outcome, type Session, show } from './session.js';
import { type SourceTest, testSource } from './source-test.js';
import { sourceTableText } from './status-view.js';
import { bytesText, countText, rateText } from './units.js';

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
    .option('--position <n>', 'its place in the order of preference, 0 for the first', integer)
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
    .option('--seconds <n>', 'try each for so long', integer, DEFAULT_TEST_SECONDS)
    .option('--bytes <n>', 'and for so many bytes at most', integer)
    .description(
      'read sources here, in this process, as fast as they go: rate, and what the health tests say; ' +
        'bytes of a hardware generator that are read here are taken from the daemon',
    )
    .action(run((session, ...specs) => testSources(session, specs, test.opts<TestOptions>())));
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
  const tests: SourceTest[] = [];
  for (const spec of specs) {
    if (until.aborted) break;
    const test = await testOne(spec, end, output);
    tests.push(test);
    if (!session.json) output.out(verdictText(output, test));
  }
  if (session.json) output.out(`${JSON.stringify({ tests })}\n`);
  return tests.every(({ problem }) => problem === null) ? ExitStatus.Ok : ExitStatus.Degraded;
}

async function testOne(
  spec: SourceSpec,
  end: Parameters<typeof testSource>[1],
  output: Output,
): Promise<SourceTest> {
  const refused = await checkSources([spec]);
  if (refused !== undefined) return untested(spec, refused.message);
  const test = await testSource(spec, end, (now) => showProgress(output, now, end.seconds));
  if (output.columns !== undefined) output.err('\r\u001b[K');
  return test;
}

function untested(spec: SourceSpec, problem: string): SourceTest {
  const nothing = { seconds: 0, bytes: 0, bytesPerSecond: 0, windows: 0, alarms: 0, repeatedBlocks: 0 };
  return { spec: spec.text, ...nothing, fips: { blocks: 0, failures: 0 }, problem };
}

/** One line that is written over itself, on a terminal only. */
function showProgress(output: Output, test: SourceTest, seconds: number): void {
  if (output.columns === undefined) return;
  const line = `${printable(test.spec)}  ${test.seconds.toFixed(1)} of ${seconds} s  ${bytesText(test.bytes)}  ${rateText(test.bytesPerSecond)}`;
  output.err(`\r\u001b[K${line.slice(0, output.columns - 1)}`);
}

function verdictText(output: Output, test: SourceTest): string {
  const { spec, bytes, bytesPerSecond, windows, alarms, repeatedBlocks, fips, problem } = test;
  const verdict =
    problem === null ? toned(output, 'good', 'passes') : toned(output, 'bad', `fails: ${printable(problem)}`);
  return [
    `${toned(output, 'strong', printable(spec))}: ${verdict}`,
    `  ${bytesText(bytes)} have passed, ${rateText(bytesPerSecond)}`,
    `  ${countText(windows)} windows of 512 bytes, ${countText(alarms)} alarms; ${countText(repeatedBlocks)} repeated blocks`,
    `  FIPS 140-2: ${countText(fips.failures)} of ${countText(fips.blocks)} blocks fail; about one in 1,200 good ones does`,
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
