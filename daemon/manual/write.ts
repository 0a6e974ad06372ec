// `npm run man`: writes the manual pages to dist/man.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { manualPages } from './pages.js';

const FOLDER = new URL('../../man/', import.meta.url);

const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
const { version } = JSON.parse(text) as { version: string };
mkdirSync(FOLDER, { recursive: true });
const { SOURCE_DATE_EPOCH: epoch } = process.env;
const date = epoch === undefined ? new Date() : new Date(Number(epoch) * 1000);
for (const page of manualPages(version, date.toISOString().slice(0, 10)))
  writeFileSync(fileURLToPath(new URL(`${page.name}.${page.section}`, FOLDER)), page.text);
