// A look at each source before the daemon starts, so that a missing device, permission or instruction is an error with a fix.
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { Fault } from '../../protocol/fault.js';
import { openCpuSource } from './cpu-source.js';
import { openJitterSource } from './jitter-source.js';
import type { OpenSource } from './source.js';
import type { SourceSpec } from './source-spec.js';

/** The first fault of scope `daemon`; an EGD server may come later and is no reason not to start. */
export function checkSources(sources: readonly SourceSpec[]): Fault | undefined {
  for (const spec of sources) {
    const fault = checkSource(spec);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

function checkSource(spec: SourceSpec): Fault | undefined {
  switch (spec.kind) {
    case 'rdrand':
    case 'rdseed':
      return closed(openCpuSource(spec.kind));
    case 'jitter':
      return closed(openJitterSource());
    case 'random':
    case 'hwrng':
    case 'file':
      return checkFile(spec.path, spec);
    case 'getrandom':
    case 'egd':
      return undefined;
  }
}

function closed(opened: OpenSource | Fault): Fault | undefined {
  if (opened instanceof Fault) return opened;
  opened.close();
  return undefined;
}

function checkFile(path: string, { kind, text }: SourceSpec): Fault | undefined {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const isFile = fstatSync(fd).isFile();
    closeSync(fd);
    return isFile && kind !== 'file'
      ? refuse(
          `expected a device as source, got ${text}, a regular file, which gives the same bytes again each time`,
        )
      : undefined;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? 'an error';
    const fix =
      code === 'EACCES' || code === 'EPERM'
        ? `give this user read permission, for example with a udev rule: KERNEL=="hwrng", GROUP="vhost-rngd", MODE="0440"`
        : 'check the path, load the driver (modprobe), or use another --source';
    return refuse(`expected to open the source ${text}, got ${code}: ${fix}`);
  }
}

function refuse(message: string): Fault {
  return new Fault('daemon', 'source_open', message);
}
