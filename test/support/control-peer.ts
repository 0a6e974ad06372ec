// A client of the control socket in a process of its own: `PATH "METHOD /path" [BODY]` prints {"status", "text"}, or {"closed"}
// when the connection is closed without an answer.
import { ask } from './control-client.js';

const [socketPath = '', line = '', body] = process.argv.slice(2);
try {
  const { status, text } = await ask(socketPath, line, body);
  process.stdout.write(JSON.stringify({ status, text }));
} catch (error) {
  process.stdout.write(JSON.stringify({ closed: (error as NodeJS.ErrnoException).code }));
}
