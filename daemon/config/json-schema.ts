// JSON Schema of the valibot schemas that the daemon uses, for /openapi.json and for editors of the configuration file.
//
// Only the kinds of schemas that stand in fields.ts, file-schema.ts and shapes.ts; another kind is a bug and throws.
import type * as v from 'valibot';

export type JsonSchema = Readonly<Record<string, unknown>>;

/** What the converter looks at; valibot's own types hide it behind each schema's. */
interface AnySchema {
  readonly type: string;
  readonly pipe?: readonly Part[];
  readonly entries?: Readonly<Record<string, AnySchema>>;
  readonly item?: AnySchema;
  readonly wrapped?: AnySchema;
  readonly options?: readonly unknown[];
  readonly literal?: unknown;
}

interface Part {
  readonly kind: string;
  readonly type: string;
  readonly requirement?: unknown;
  readonly description?: string;
}

/** The schema as JSON Schema, without `$schema`. */
export function jsonSchemaOf(schema: v.GenericSchema): JsonSchema {
  return convert(schema);
}

function convert(schema: AnySchema): JsonSchema {
  const base = schema.pipe?.[0];
  const own =
    base !== undefined && base !== (schema as unknown) && isSchema(base) ? convert(base) : bare(schema);
  return (schema.pipe ?? []).slice(1).reduce<JsonSchema>((sum, part) => ({ ...sum, ...rule(part) }), own);
}

function isSchema(part: unknown): part is AnySchema {
  return (part as Part).kind === 'schema' && 'pipe' in (part as object);
}

function bare(schema: AnySchema): JsonSchema {
  switch (schema.type) {
    case 'string':
    case 'boolean':
    case 'number':
      return { type: schema.type };
    case 'literal':
      return { const: schema.literal };
    case 'picklist':
      return { enum: schema.options };
    case 'array':
      return { type: 'array', ...(schema.item && { items: convert(schema.item) }) };
    case 'nullable':
      return { anyOf: [...(schema.wrapped ? [convert(schema.wrapped)] : []), { type: 'null' }] };
    case 'optional':
      return schema.wrapped ? convert(schema.wrapped) : {};
    case 'union':
      return { anyOf: (schema.options as readonly AnySchema[]).map(convert) };
    case 'strict_object':
      return object(schema.entries ?? {});
    default:
      throw new Error(`no JSON Schema for ${schema.type}`);
  }
}

function object(entries: Readonly<Record<string, AnySchema>>): JsonSchema {
  const required = Object.keys(entries).filter((key) => entries[key]?.type !== 'optional');
  const properties = Object.fromEntries(Object.entries(entries).map(([key, inner]) => [key, convert(inner)]));
  return {
    type: 'object',
    properties,
    ...(required.length > 0 && { required }),
    additionalProperties: false,
  };
}

/** What one step of a pipe adds; checks that JSON Schema has no word for add nothing. */
function rule(part: Part): JsonSchema {
  switch (part.type) {
    case 'integer':
      return { type: 'integer' };
    case 'min_value':
      return { minimum: part.requirement };
    case 'max_value':
      return { maximum: part.requirement };
    case 'min_length':
      return { minLength: part.requirement };
    case 'max_bytes':
      return { maxLength: part.requirement };
    case 'regex':
      return { pattern: (part.requirement as RegExp).source };
    case 'description':
      return { description: part.description };
    default:
      return {};
  }
}
