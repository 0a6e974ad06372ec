#!/usr/bin/env node
// The program vhost-rngctl: asks and changes a running daemon over its control socket.
import { exitNow } from '../shared-memory/process-control.js';
import { runCtl } from './ctl/program.js';
import { isReaderHanging } from './ctl/source-test.js';
import { isCheckHanging } from './entropy/source-check.js';

void runCtl(process.argv.slice(2)).then((status) => {
  process.exitCode = status;
  // node would wait for a thread that hangs in a source's driver.
  if (isReaderHanging() || isCheckHanging()) process.stdout.write('', () => exitNow(status));
});
