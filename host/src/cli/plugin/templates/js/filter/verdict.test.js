import assert from 'node:assert/strict';
import { test } from 'node:test';

import { verdict } from './verdict.js';

const file = (data) => ({ id: '1', source: '/lab', type: 'file.created', data: { tag: 'json', val: JSON.stringify(data) } });

test('big files are delivered, small ones skipped', () => {
  assert.deepEqual(verdict(file({ size: 10 }), { smallest: 10 }), { tag: 'deliver' });
  assert.deepEqual(verdict(file({ size: 5 }), { smallest: 10 }), { tag: 'skip', val: 'size 5 < 10' });
  assert.deepEqual(verdict(file({ size: 5 }), {}), { tag: 'deliver' });
});

test('an event without a size and a wrong configuration are told', () => {
  assert.throws(() => verdict({ data: null }, {}), { tag: 'invalid-event' });
  assert.throws(() => verdict(file({ size: 5 }), { smallest: 'big' }), { tag: 'invalid-config' });
});
