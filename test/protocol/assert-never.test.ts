import t from 'tap';
import { assertNever } from '../../protocol/assert-never.js';

t.test('throws and names what came', (t) => {
  t.throws(() => void Reflect.apply(assertNever, undefined, ['lost']), {
    message: 'expected no value, got lost',
  });
  t.end();
});
