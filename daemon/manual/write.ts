// `npm run man`: writes the manual pages to dist/man.
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { packageVersion } from '../version.js';
import { manualPages } from './pages.js';

const FOLDER = new URL('../../man/', import.meta.url);

mkdirSync(FOLDER, { recursive: true });
const { SOURCE_DATE_EPOCH: epoch } = process.env;
const date = epoch === undefined ? new Date() : new Date(Number(epoch) * 1000);
for (const page of manualPages(packageVersion(), date.toISOString().slice(0, 10)))
  writeFileSync(fileURLToPath(new URL(`${page.name}.${page.section}`, FOLDER)), page.text);
