// The programs of the threads, by their files: modules beside this one, or bundles beside the bundle that this is part of.
const BUNDLED = import.meta.url.endsWith('.cjs');

/** The data plane (`data-plane-worker.ts`). */
export const DATA_PLANE_THREAD = thread('data-plane-worker');
/** The reader of a source (`entropy/reader-thread.ts`). */
export const READER_THREAD = thread('entropy/reader-thread');
/** The look at sources before a start and a reload (`entropy/source-check-thread.ts`). */
export const SOURCE_CHECK_THREAD = thread('entropy/source-check-thread');

function thread(module: string): URL {
  return new URL(`./${module}.${BUNDLED ? 'cjs' : 'js'}`, import.meta.url);
}
