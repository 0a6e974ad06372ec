// Completion: a few lines for the shell, which ask this program at each Tab; so what is offered is what the program's own
// definitions say, and the devices are those that are there now.
import type { Command, Option } from 'commander';
import { Fault } from '../../protocol/fault.js';
import { MEMORY_POLICIES } from '../../shared-memory/memory-region.js';
import { DevicesShape, SourcesShape } from '../control/shapes.js';
import type { ControlClient } from './client.js';

export const SHELLS = ['bash', 'zsh'] as const;

/** The name of the command that the shells ask. */
export const COMPLETE_COMMAND = 'complete-words';

const BASH = `_vhost_rngctl() {
  # bash takes = and : for ends of words: the line is split anew, and what stands before them is taken off what is offered.
  local line="\${COMP_LINE:0:COMP_POINT}" current="\${COMP_WORDS[COMP_CWORD]}" words before
  read -ra words <<< "$line"
  [[ $line == *' ' ]] && words+=('')
  [[ $current == [=:] ]] && current=''
  before="\${words[-1]%"$current"}"
  local IFS=$'\\n'
  COMPREPLY=($("\${words[0]}" ${COMPLETE_COMMAND} -- "\${words[@]:1}" 2>/dev/null))
  COMPREPLY=("\${COMPREPLY[@]#"$before"}")
}
complete -o default -F _vhost_rngctl vhost-rngctl
`;

const ZSH = `#compdef vhost-rngctl
_vhost_rngctl() {
  local -a found
  found=(\${(f)"$("\${words[1]}" ${COMPLETE_COMMAND} -- "\${(@)words[2,CURRENT]}" 2>/dev/null)"})
  if (( \${#found} )); then compadd -a found; else _files; fi
}
compdef _vhost_rngctl vhost-rngctl
`;

/** What a shell is to evaluate. */
export function completionScript(shell: string | undefined): string {
  return shell === 'zsh' ? ZSH : BASH;
}

/** Completions for the last of `words`, which may be empty; \`client\` is asked for names, and none come when it does not answer. */
export async function completions(
  program: Command,
  words: readonly string[],
  client: ControlClient,
): Promise<string[]> {
  const begun = words.at(-1) ?? '';
  const [flag, value] = begun.split(/=(.*)/s);
  if (flag?.startsWith('--') === true && value !== undefined)
    return (await completions(program, [...words.slice(0, -1), flag, value], client)).map(
      (one) => `${flag}=${one}`,
    );
  const { command, places, option } = walk(program, words.slice(0, -1));
  const offered =
    option !== undefined
      ? await valuesOf(option, client)
      : begun.startsWith('-')
        ? [...command.options, ...program.options].flatMap(({ long, hidden }) => (hidden ? [] : (long ?? [])))
        : [...subcommandsOf(command), ...(await argumentsOf(command, places, client))];
  return [...new Set(offered)].filter((word) => word.startsWith(begun)).sort();
}

/** Where the words lead: the command, how many of its arguments are there, and an option that wants a value. */
function walk(
  program: Command,
  words: readonly string[],
): { readonly command: Command; readonly places: number; readonly option: Option | undefined } {
  let command = program;
  let places = 0;
  let option: Option | undefined;
  for (const word of words) {
    if (option !== undefined) {
      option = undefined;
    } else if (word.startsWith('-')) {
      const known = [...command.options, ...program.options].find(({ long }) => long === word);
      option = known?.required === true ? known : undefined;
    } else {
      const inner = command.commands.find((other) => other.name() === word);
      if (inner === undefined) places++;
      else command = inner;
    }
  }
  return { command, places, option };
}

function subcommandsOf(command: Command): string[] {
  return command.commands.map((inner) => inner.name()).filter((name) => name !== COMPLETE_COMMAND);
}

async function argumentsOf(command: Command, places: number, client: ControlClient): Promise<string[]> {
  const last = command.registeredArguments.at(-1);
  const argument = command.registeredArguments[places] ?? (last?.variadic === true ? last : undefined);
  if (argument?.argChoices !== undefined) return argument.argChoices;
  if (argument?.name() === 'spec') return sourceNames(client);
  return argument?.name() === 'name' && command.name() !== 'add' ? deviceNames(client) : [];
}

async function valuesOf(option: Option, client: ControlClient): Promise<string[]> {
  if (option.long === '--source') return sourceNames(client);
  return option.long === '--memory' ? [...MEMORY_POLICIES] : [];
}

async function deviceNames(client: ControlClient): Promise<string[]> {
  const answer = await client.json(DevicesShape, ['GET', '/v1/devices']);
  return answer instanceof Fault ? [] : answer.value.devices.map(({ name }) => name);
}

async function sourceNames(client: ControlClient): Promise<string[]> {
  const answer = await client.json(SourcesShape, ['GET', '/v1/sources']);
  return answer instanceof Fault ? [] : answer.value.sources.map(({ spec }) => spec);
}
