// The JSON Schema of the configuration file, for editors: docs/vhost-rngd.schema.json, which a test holds to this.
import { FileShape } from './file-schema.js';
import { type JsonSchema, jsonSchemaOf } from './json-schema.js';

/** The whole document. */
export function configSchema(): JsonSchema {
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Configuration of vhost-rngd',
    ...jsonSchemaOf(FileShape),
  };
}
