// The names in a PromQL expression: metrics, and the labels that stand with each. Tokens, not a parser: promtool parses.

const TOKEN = /"(?:[^"\\]|\\.)*"|\$?[a-zA-Z_:][a-zA-Z0-9_:]*|\[[^\]]*\]|[{}()=!~,]|[^\s]/g;
/** Words of the language that are followed by a list of labels. */
const LABEL_LISTS = new Set(['by', 'without', 'on', 'ignoring', 'group_left', 'group_right']);
const OPERATORS = new Set(['and', 'or', 'unless', 'bool', 'offset']);

/** A use of a metric. */
export interface MetricUse {
  readonly metric: string;
  /** Labels of its selector. */
  readonly labels: readonly string[];
}

/** Every use of a metric in `expression`, and every label of its `by (...)` and other lists. */
export function namesIn(expression: string): { readonly uses: MetricUse[]; readonly listed: string[] } {
  const tokens = expression.match(TOKEN) ?? [];
  const uses: MetricUse[] = [];
  const listed: string[] = [];
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i] ?? '';
    if (!/^[a-zA-Z_:]/.test(token) || OPERATORS.has(token)) continue;
    const next = tokens[i + 1];
    if (LABEL_LISTS.has(token)) {
      for (i += 2; i < tokens.length && tokens[i] !== ')'; i++)
        if (tokens[i] !== ',') listed.push(tokens[i] ?? '');
    } else if (next === '(' || (LABEL_LISTS.has(next ?? '') && isAggregation(token))) {
      continue;
    } else {
      const labels: string[] = [];
      if (next === '{')
        for (i += 2; i < tokens.length && tokens[i] !== '}'; i++)
          if (/^[a-zA-Z_]/.test(tokens[i] ?? '')) labels.push(tokens[i] ?? '');
      uses.push({ metric: token, labels });
    }
  }
  return { uses, listed };
}

function isAggregation(word: string): boolean {
  return ['sum', 'min', 'max', 'avg', 'count', 'topk', 'bottomk'].includes(word);
}
