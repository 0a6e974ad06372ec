// Lint: typed rules for every source, and the import direction protocol <- shared-memory <- daemon.
import eslint from '@eslint/js';
import tseslint from 'typescript-eslint';

/** Forbids importing from the folders above `layer` in the import direction. */
function layer(name, forbidden) {
  return {
    files: [`${name}/**/*.ts`],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: forbidden.map((group) => ({
            group: [group],
            message: `${name}/ must not import this: the direction is protocol <- shared-memory <- daemon.`,
          })),
        },
      ],
    },
  };
}

const ffiPackages = ['ffi-napi', 'ffi-napi/*', 'ref-napi', 'ref-napi/*'];

export default tseslint.config(
  { ignores: ['dist/**', 'node_modules/**', '.tap/**'] },
  eslint.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.strictTypeChecked, ...tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/no-non-null-assertion': 'error',
      // On the data path an index loop is meant: an iterator may be an allocation.
      '@typescript-eslint/prefer-for-of': 'off',
      'max-lines': ['error', { max: 400, skipBlankLines: true, skipComments: true }],
      'max-params': ['error', { max: 4 }],
      eqeqeq: 'error',
      'no-console': 'error',
    },
  },
  layer('protocol', ['node:*', '**/shared-memory/**', '**/daemon/**', '**/test/**', ...ffiPackages]),
  layer('shared-memory', ['**/daemon/**', '**/test/**', ...ffiPackages]),
  layer('daemon', ['**/test/**', ...ffiPackages]),
  layer('test', ffiPackages),
  { files: ['shared-memory/ffi.ts'], rules: { 'no-restricted-imports': 'off' } },
  {
    files: ['test/**/*.ts'],
    rules: { 'no-console': 'off', '@typescript-eslint/no-floating-promises': 'off' },
  },
);
