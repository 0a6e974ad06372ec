// What stands in front of a message of the log for people.
import t from 'tap';
import { subjectOf } from '../../daemon/log-subject.js';

t.test('a message says once what it is about', (t) => {
  const msg = 'random:/dev/random is healthy: it has passed its start-up test';
  t.equal(subjectOf({ msg, source: 'random:/dev/random' }), '', 'a source that the message names');
  t.equal(subjectOf({ msg: 'something else', source: 'hwrng' }), 'hwrng: ');
  t.equal(subjectOf({ msg: 'listening', device: 'rng0' }), 'rng0: ');
  t.equal(subjectOf({ msg: 'rng0 and more', device: 'rng0', source: 'hwrng' }), 'rng0: ', 'a device always');
  t.equal(subjectOf({ msg: 'stopping' }), '');
  t.end();
});
