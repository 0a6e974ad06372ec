// Commands that look: nothing changes by them.
import type { Command } from 'commander';
import { Fault } from '../../protocol/fault.js';
import { isOnlyStarting } from '../control/health.js';
import { DeviceShape, DevicesShape, HealthShape, SourcesShape, StatusShape } from '../control/shapes.js';
import { ExitStatus } from './exit-status.js';
import { eventText } from './event-view.js';
import { type Outcome, type Session, show } from './session.js';
import { devicesText, deviceText, healthText, sourceTableText, statusText } from './status-view.js';

/** Makes an action of commander of a command; see program.ts. */
export type Run = (
  command: (session: Session, ...args: string[]) => Promise<Outcome>,
) => (...args: unknown[]) => Promise<void>;

/** Adds them to the program. */
export function addLookCommands(program: Command, run: Run): void {
  program
    .command('status')
    .description('health, devices and sources at a glance')
    .action(
      run((session) =>
        show(session, StatusShape, ['GET', '/v1/status'], (status) => statusText(session.output, status)),
      ),
    );
  program
    .command('health')
    .description('whether guests are served, and what is wrong; exits with 0, 1 or 2: ok, degraded, failing')
    .action(run(health));
  program
    .command('devices')
    .description('all devices, a line each')
    .action(
      run((session) =>
        show(session, DevicesShape, ['GET', '/v1/devices'], ({ devices }) =>
          devicesText(session.output, devices),
        ),
      ),
    );
  program
    .command('device')
    .argument('<name>')
    .description('all that is known of one device')
    .action(
      run(async (session, name) =>
        show(session, DeviceShape, ['GET', devicePath(name)], (device) => deviceText(session.output, device)),
      ),
    );
  program.command('metrics').description('the counters in the text form of Prometheus').action(run(metrics));
  program
    .command('events')
    .description('what happens from now on, until Ctrl-C or the end of the daemon')
    .action(run(events));
}

/** The list of sources; its command is the group that the others of sources belong to. */
export function listSources(session: Session): Promise<Outcome> {
  return show(session, SourcesShape, ['GET', '/v1/sources'], ({ sources }) =>
    sourceTableText(session.output, sources),
  );
}

/** The path of a device's route. */
export function devicePath(name = ''): string {
  return `/v1/devices/${encodeURIComponent(name)}`;
}

const HEALTH_STATUSES = {
  ok: ExitStatus.Ok,
  degraded: ExitStatus.Degraded,
  failing: ExitStatus.Failing,
} as const;

async function health({ client, json, output }: Session): Promise<Outcome> {
  const answer = await client.settled(HealthShape, '/healthz', isOnlyStarting);
  if (answer instanceof Fault) return answer;
  output.out(json ? `${answer.text.trimEnd()}\n` : healthText(output, answer.value));
  return HEALTH_STATUSES[answer.value.status];
}

async function metrics({ client, json, output }: Session): Promise<Outcome> {
  const reply = await client.ask('GET', '/metrics');
  if (reply instanceof Fault) return reply;
  output.out(json ? `${JSON.stringify({ text: reply.text })}\n` : reply.text);
  return ExitStatus.Ok;
}

async function events({ client, json, output, until }: Session): Promise<Outcome> {
  const failed = await client.stream(
    '/v1/events',
    (line) => output.out(json ? `${line}\n` : eventText(output, line)),
    until,
  );
  if (failed !== undefined || until.aborted) return failed ?? ExitStatus.Ok;
  return new Fault(
    'request',
    'control_unreachable',
    'expected more events, got the end of the daemon or of its patience',
  );
}
