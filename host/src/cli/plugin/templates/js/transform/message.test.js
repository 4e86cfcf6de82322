import assert from 'node:assert/strict';
import { test } from 'node:test';

import { message } from './message.js';

const event = { id: '1', source: '/lab', type: 'file.created', subject: 'a.tiff' };

test('a message names the type and the subject, or the id', () => {
  assert.equal(message(event, { prefix: 'Lab: ' }), 'Lab: file.created a.tiff');
  assert.equal(message({ ...event, subject: null }, {}), 'file.created 1');
});

test('a wrong configuration is told', () => {
  assert.throws(() => message(event, { prefix: 7 }), { tag: 'invalid-config' });
});
