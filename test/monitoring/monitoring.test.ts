// Dashboard and alert rules against what the daemon exposes: every metric and label that they use is there, promtool accepts
// them, and each alert fires when it should. And a real Prometheus that scrapes a real daemon, as the README says.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import * as v from 'valibot';
import { ask } from '../support/control-client.js';
import { namesIn } from '../support/promql.js';
import { startRngDaemon, temporaryFolder } from '../support/rng-daemon.js';
import { VirtualMachine } from '../support/virtual-machine.js';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const RULES = join(ROOT, 'docs/prometheus-alerts.yml');
const DASHBOARD = join(ROOT, 'docs/grafana-dashboard.json');
/** What Prometheus adds to each series, and its own metric of a target. */
const ADDED_LABELS = ['instance', 'job'];
const OWN_METRICS = ['up'];

const DashboardShape = v.object({
  title: v.string(),
  templating: v.object({ list: v.array(v.object({ name: v.string() })) }),
  panels: v.array(
    v.object({
      id: v.number(),
      type: v.string(),
      title: v.string(),
      targets: v.optional(v.array(v.object({ expr: v.string(), legendFormat: v.string() }))),
    }),
  ),
});

function promtool(args: readonly string[], input = ''): string {
  return execFileSync('promtool', [...args], { encoding: 'utf8', input, stdio: ['pipe', 'pipe', 'pipe'] });
}

async function startScraped(t: Test) {
  const control = join(temporaryFolder(t), 'control.sock');
  const { path } = await startRngDaemon(t, {
    args: [`--control-socket=${control}`, '--max-bytes=1000000', '--period=1000'],
  });
  const vm = VirtualMachine.start(path);
  t.teardown(() => vm.close());
  for (let i = 0; i < 500; i++) vm.request(64);
  return { control, vm };
}

/** Metrics of a text with the labels that each has had. */
function exposedIn(text: string): Map<string, Set<string>> {
  const exposed = new Map<string, Set<string>>();
  for (const [, name = '', labels = ''] of text.matchAll(/^([a-z_]+)(?:\{(.*)\})? \S+$/gm)) {
    const known = exposed.get(name) ?? new Set();
    for (const [, label = ''] of labels.matchAll(/([a-z_]+)="/g)) known.add(label);
    exposed.set(name, known);
  }
  return exposed;
}

function rulesIn(yaml: string): string[] {
  return [...yaml.matchAll(/^ +expr: (.*)$/gm)].map(([, expr = '']) => expr);
}

const dashboard = v.parse(DashboardShape, JSON.parse(readFileSync(DASHBOARD, 'utf8')));
const panelExpressions = dashboard.panels.flatMap(({ title, targets = [] }) =>
  targets.map(({ expr, legendFormat }) => ({ title, expr, legendFormat })),
);
const alertExpressions = rulesIn(readFileSync(RULES, 'utf8')).map((expr) => ({
  title: 'alert',
  expr,
  legendFormat: '',
}));

await t.test('dashboard and alerts use metrics and labels that there are', async (t) => {
  const { control } = await startScraped(t);
  const { text } = await ask(control, 'GET /metrics');
  const exposed = exposedIn(text);
  t.ok(panelExpressions.length > 25 && alertExpressions.length >= 12, 'expressions were found');
  const used = new Set<string>();
  for (const { title, expr, legendFormat } of [...panelExpressions, ...alertExpressions]) {
    const { uses, listed } = namesIn(expr);
    t.ok(uses.length > 0, `${title}: ${expr}`);
    const labels = new Set(ADDED_LABELS);
    for (const { metric, labels: selected } of uses) {
      used.add(metric);
      if (OWN_METRICS.includes(metric)) continue;
      t.ok(exposed.has(metric), `${title}: ${metric} is exposed`);
      const known = [...(exposed.get(metric) ?? []), ...ADDED_LABELS];
      for (const label of known) labels.add(label);
      for (const label of selected) t.ok(known.includes(label), `${title}: ${metric} has the label ${label}`);
    }
    for (const label of listed) t.ok(labels.has(label), `${title}: label ${label} of a list`);
    for (const [, label = ''] of legendFormat.matchAll(/\{\{(\w+)\}\}/g))
      t.ok(labels.has(label), `${title}: label ${label} of the legend`);
  }
  // What is counted and shown nowhere is a question: these are for whoever looks closer.
  const shown = [...exposed.keys()].filter(
    (name) => used.has(name) || name.endsWith('_sum') || name.endsWith('_count'),
  );
  const unshown = [...exposed.keys()].filter((name) => !shown.includes(name));
  t.same(unshown.sort(), ['vhost_rngd_device_weight'], 'all but these are on the dashboard or in an alert');
  t.equal(promtool(['check', 'metrics'], text), '', 'promtool has nothing to say about them');
});

await t.test('the dashboard: panels of its own, variables that are there', (t) => {
  const ids = dashboard.panels.map(({ id }) => id);
  t.equal(new Set(ids).size, ids.length);
  const variables = dashboard.templating.list.map(({ name }) => name);
  t.same(variables, ['datasource', 'instance']);
  for (const [, name = ''] of readFileSync(DASHBOARD, 'utf8').matchAll(/\$\{?(\w+)/g))
    t.ok([...variables, '__rate_interval'].includes(name), name);
  t.end();
});

t.test('promtool accepts rules and dashboard, and each alert fires when it should', (t) => {
  t.match(promtool(['check', 'rules', RULES]), /12 rules found/);
  t.match(promtool(['test', 'rules', join(ROOT, 'test/monitoring/prometheus-alerts.test.yml')]), /SUCCESS/);
  const tested = readFileSync(join(ROOT, 'test/monitoring/prometheus-alerts.test.yml'), 'utf8');
  const alerts = [...readFileSync(RULES, 'utf8').matchAll(/- alert: (\w+)/g)].map(([, name = '']) => name);
  for (const alert of alerts) t.ok(tested.includes(`alertname: ${alert}\n`), `${alert} has a test`);
  // As recording rules, since promtool reads no dashboards.
  const recorded = panelExpressions.map(({ expr }, i) => ({
    record: `panel_${i}`,
    expr: expr.replaceAll('$__rate_interval', '5m').replaceAll('$instance', '.*'),
  }));
  const folder = temporaryFolder(t);
  writeFileSync(
    join(folder, 'panels.yml'),
    JSON.stringify({ groups: [{ name: 'panels', rules: recorded }] }),
  );
  t.match(
    promtool(['check', 'rules', join(folder, 'panels.yml')]),
    new RegExp(`${recorded.length} rules found`),
  );
  t.end();
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}

function startProgram(t: Test, program: string, args: readonly string[]): void {
  const child = spawn(program, [...args], { stdio: 'ignore' });
  t.teardown(async () => {
    child.kill('SIGTERM');
    await once(child, 'exit');
  });
}

const AnswerShape = v.object({
  data: v.object({ result: v.array(v.object({ value: v.tuple([v.number(), v.string()]) })) }),
});

await t.test(
  'a real Prometheus scrapes the control socket through socat, and knows the alerts',
  async (t) => {
    const { control, vm } = await startScraped(t);
    const folder = temporaryFolder(t);
    const [bridge, web] = [await freePort(), await freePort()];
    startProgram(t, 'socat', [
      `TCP-LISTEN:${bridge},bind=127.0.0.1,fork,reuseaddr`,
      `UNIX-CONNECT:${control}`,
    ]);
    const config = {
      global: { scrape_interval: '1s', evaluation_interval: '1s' },
      rule_files: [RULES],
      scrape_configs: [{ job_name: 'vhost-rngd', static_configs: [{ targets: [`127.0.0.1:${bridge}`] }] }],
    };
    writeFileSync(join(folder, 'prometheus.yml'), JSON.stringify(config));
    mkdirSync(join(folder, 'data'));
    startProgram(t, 'prometheus', [
      `--config.file=${join(folder, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(folder, 'data')}`,
      `--web.listen-address=127.0.0.1:${web}`,
      '--log.level=error',
    ]);
    const get = async (path: string): Promise<unknown> =>
      fetch(`http://127.0.0.1:${web}${path}`).then(
        (answer) => answer.json(),
        () => undefined,
      );
    const query = async (promql: string): Promise<string | undefined> => {
      const answer = v.safeParse(AnswerShape, await get(`/api/v1/query?query=${encodeURIComponent(promql)}`));
      return answer.success ? answer.output.data.result[0]?.value[1] : undefined;
    };
    const becomes = async (promql: string, wanted: string): Promise<void> => {
      let last: string | undefined;
      for (const endMs = performance.now() + 60_000; performance.now() < endMs;) {
        last = await query(promql);
        if (last === wanted) break;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      t.equal(last, wanted, promql);
    };
    await becomes('up{job="vhost-rngd"}', '1');
    await becomes('vhost_rngd_device_requests_total{device="rng0"}', '500');
    vm.request(64);
    await becomes('vhost_rngd_device_requests_total{device="rng0"}', '501');
    await becomes('vhost_rngd_health{status="ok"}', '1');
    t.match(await get('/api/v1/rules'), { data: { groups: [{ name: 'vhost-rngd' }] } });
  },
);
