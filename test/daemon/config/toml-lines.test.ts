// Where a key stands in a TOML text: each line of a document, by its path.
import t from 'tap';
import { type KeyPath, lineOf } from '../../../daemon/config/toml-lines.js';

const TEXT = `# max-bytes = 1
period = 1000
"quoted key" = 1
control.group = "a"

[control]
  socket = "/a"
[[device]]
name = "a" # [[device]]
[[device]]
name = "b"
limits.max = 3
[ device.memory ]
kind = "x"
[[device]]
name = "c"
`;

const LINES: readonly (readonly [KeyPath, number | undefined])[] = [
  [['period'], 2],
  [['quoted key'], 3],
  [['control', 'group'], 4],
  [['control', 'socket'], 7],
  [['control', 'admins'], 6],
  [['device', 0, 'name'], 9],
  [['device', 1, 'name'], 11],
  [['device', 1, 'limits', 'max'], 12],
  [['device', 1, 'memory', 'kind'], 14],
  [['device', 2, 'name'], 16],
  [['device', 2, 'weight'], 15],
  [['device', 0], 8],
  [['max-bytes'], undefined],
  [[], undefined],
];

t.test('the line of a key, or of the nearest table around it', (t) => {
  for (const text of [TEXT, TEXT.replaceAll('\n', '\r\n')])
    for (const [path, line] of LINES) t.equal(lineOf(text, path), line, path.join('.'));
  t.end();
});
