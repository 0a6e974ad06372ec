// The thread that looks at sources before the daemon starts or reloads; it alone hangs when a driver does.
import { parentPort, workerData } from 'node:worker_threads';
import { type CheckAnswer, firstFault } from './source-check.js';
import type { SourceSpec } from './source-spec.js';

const fault = firstFault(workerData as readonly SourceSpec[]);
// An error loses its class on the way.
const answer: CheckAnswer = { fault: fault && { code: fault.code, message: fault.message } };
parentPort?.postMessage(answer);
