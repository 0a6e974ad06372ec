#!/usr/bin/env node
// The program vhost-rngd: options, log, sockets, data plane, signals; everything is wired together here.
import { capabilities } from './capabilities.js';

// Management software asks this of every back-end it finds, so it is answered before anything else is loaded.
if (process.argv.includes('--print-capabilities')) {
  process.stdout.write(capabilities());
} else {
  void import('./process.js').then(({ run }) => run(process.argv.slice(2)));
}
