// Commands that print what to paste elsewhere: options of QEMU, XML of libvirt, completion for a shell.
import { dirname } from 'node:path';
import { type Command, Argument } from 'commander';
import { Fault } from '../../protocol/fault.js';
import { DeviceShape } from '../control/shapes.js';
import { libvirtXml, qemuLine } from '../qemu-line.js';
import { completionScript, SHELLS } from './completion.js';
import { ExitStatus } from './exit-status.js';
import { devicePath, type Run } from './look-commands.js';
import type { Outcome, Session } from './session.js';

/** Adds them to the program. */
export function addPasteCommands(program: Command, run: Run): void {
  program
    .command('qemu')
    .argument('<name>')
    .description("QEMU's options for a guest that draws from this device")
    .action(run((session, name) => paste(session, name, qemuLine)));
  program
    .command('libvirt')
    .argument('<name>')
    .description("libvirt's XML for a guest that draws from this device")
    .action(run(libvirt));
  program
    .command('completion')
    .addArgument(new Argument('<shell>').choices(SHELLS))
    .description(
      'completion of commands and devices, for your shell to read: eval "$(vhost-rngctl completion bash)"',
    )
    .action(
      run(({ output }, shell) => {
        output.out(completionScript(shell));
        return Promise.resolve(ExitStatus.Ok);
      }),
    );
}

async function socketOf({ client }: Session, name = ''): Promise<string | Fault> {
  const answer = await client.json(DeviceShape, ['GET', devicePath(name)]);
  if (answer instanceof Fault) return answer;
  return (
    answer.value.socket ??
    new Fault('request', 'no_socket_path', `expected a device with a path, got ${name}, an inherited socket`)
  );
}

async function paste(
  session: Session,
  name: string | undefined,
  form: (socketPath: string) => string,
): Promise<Outcome> {
  const socket = await socketOf(session, name);
  if (socket instanceof Fault) return socket;
  const text = form(socket);
  session.output.out(session.json ? `${JSON.stringify({ text })}\n` : `${text}\n`);
  return ExitStatus.Ok;
}

async function libvirt(session: Session, name?: string): Promise<Outcome> {
  const socket = await socketOf(session, name);
  if (socket instanceof Fault) return socket;
  const done = await paste(session, name, libvirtXml);
  session.output.err(
    'Where AppArmor confines QEMU, as on Debian and Ubuntu, allow the sockets once:\n' +
      `  echo '  ${dirname(socket)}/*.sock rw,' | sudo tee -a /etc/apparmor.d/local/abstractions/libvirt-qemu\n`,
  );
  return done;
}
