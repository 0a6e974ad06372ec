// A process that logs what a test tells it: `LINES` lines with a message, then "done" on standard output, then one more
// line for each byte that comes on standard input, until that ends.
import { DaemonLog } from '../../daemon/log.js';

const [format = 'text', count = '1', message = 'a line', level = 'info'] = process.argv.slice(2);
const { log } = new DaemonLog({ format: format === 'json' ? 'json' : 'text', level: 'debug' });
const levels = { error: 'error', warn: 'warn', info: 'info', debug: 'debug' } as const;
const chosen = levels[level as keyof typeof levels];

for (let i = 0; i < Number(count); i++)
  log(chosen, 'test_line', JSON.parse(message) as string, { device: 'rng0' });
process.stdout.write('done\n');
process.stdin.on('data', (bytes) => {
  for (let i = 0; i < bytes.length; i++) log('info', 'test_line', 'after', { device: 'rng0', suppressed: 3 });
  process.stdout.write('more\n');
});
