import assert from 'node:assert/strict';
import { test } from 'node:test';

import { decision } from './decision.js';

const open = { id: '1', source: '/lab', type: 'file.created', extensions: [] };
const restricted = { ...open, extensions: [['restricted', 'true']] };

test('open events are for everybody', () => {
  assert.deepEqual(decision(open, 'bob', { users: ['ada'] }), { tag: 'allow' });
});

test('restricted events are for the users of the list', () => {
  assert.deepEqual(decision(restricted, 'ada', { users: ['ada'] }), { tag: 'allow' });
  assert.deepEqual(decision(restricted, 'bob', { users: ['ada'] }), {
    tag: 'deny',
    val: 'bob may not see restricted events',
  });
  assert.equal(decision(restricted, 'bob', {}).tag, 'deny');
});

test('a wrong configuration is told', () => {
  assert.throws(() => decision(open, 'ada', { users: 'ada' }), { tag: 'invalid-config' });
});
