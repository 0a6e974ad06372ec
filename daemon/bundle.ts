// A step of `npm run build`: makes one file of each program and each thread, main.cjs beside main.js and so on. These are what runs.
//
// A thread that loads its hundred modules one by one takes four times as long to start, and a start is a pause of every guest
// when the daemon is restarted under it. The modules stay: the tests import them.
import { readdirSync, readFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Plugin } from 'esbuild';

const FOLDER = fileURLToPath(new URL('.', import.meta.url));
const LICENCES = fileURLToPath(new URL('../THIRD-PARTY-LICENSES', import.meta.url));
const PROGRAMS = ['main', 'ctl', 'data-plane-worker', 'entropy/reader-thread', 'entropy/source-check-thread'];

/** Where the FFI packages look for their native parts, which stay in files of their own. */
const NATIVE_PARTS = [
  { package: 'ffi-napi', file: 'lib/bindings.js', part: 'build/Release/ffi_bindings.node' },
  { package: 'ref-napi', file: 'lib/ref.js', part: 'build/Release/binding.node' },
];

/** Names the native parts outright instead of searching for them, which takes a bundle to the wrong folder. */
const nativeParts: Plugin = {
  name: 'native-parts',
  setup(bundle) {
    for (const { package: name, file, part } of NATIVE_PARTS) {
      const filter = new RegExp(`/${name}/${file}$`.replaceAll('.', '\\.'));
      bundle.onLoad({ filter }, async ({ path }) => {
        const text = await readFile(path, 'utf8');
        const contents = text.replace(/require\('node-gyp-build'\)\([^;]*\);/, `require('${name}/${part}');`);
        if (contents === text) throw new Error(`expected ${path} to call node-gyp-build, it does not`);
        return { contents, loader: 'js' };
      });
    }
  },
};

const { metafile } = await build({
  entryPoints: PROGRAMS.map((program) => `${FOLDER}${program}.js`),
  outdir: FOLDER,
  outbase: FOLDER,
  outExtension: { '.js': '.cjs' },
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node20',
  external: ['*.node'],
  // One package under two names: ffi-napi asks for the one, and package.json gives it the other.
  alias: { '@2060.io/ref-napi': 'ref-napi' },
  plugins: [nativeParts],
  // CommonJS has no import.meta, and is strict only where it says so first.
  define: { 'import.meta.url': 'importMetaUrl' },
  banner: {
    js: "'use strict';\nconst importMetaUrl = require('node:url').pathToFileURL(__filename).href;",
  },
  logLevel: 'warning',
  metafile: true,
});
await writeFile(LICENCES, licencesOf(Object.keys(metafile.inputs)));

/** The licences of all packages that are part of the bundles, which ask to be passed on with them. */
function licencesOf(inputs: readonly string[]): string {
  const folders = new Set(
    inputs.flatMap((input) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input) ?? []),
  );
  return [...folders].sort().map(licenceOf).join('\n');
}

function licenceOf(folder: string): string {
  const { name, version, license } = JSON.parse(
    readFileSync(join(folder, 'package.json'), 'utf8'),
  ) as Manifest;
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file === undefined ? '' : readFileSync(join(folder, file), 'utf8').trimEnd();
  return `${name} ${version} (${license})\n\n${text}\n`;
}

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license: string;
}
