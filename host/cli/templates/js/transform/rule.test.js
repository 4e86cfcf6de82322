import assert from 'node:assert/strict';
import { test } from 'node:test';
import { message } from './rule.js';

const event = { type: 'file.written', source: '/microscope' };

test('an event becomes a message', () => {
  assert.deepEqual(message(event, { prefix: 'Look' }), { text: 'Look: file.written from /microscope' });
  assert.deepEqual(message(event, {}), { text: 'New: file.written from /microscope' });
});

test('a wrong configuration is told', () => {
  assert.throws(() => message(event, { prefix: 7 }), { tag: 'invalid-config' });
});
