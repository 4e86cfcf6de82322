import assert from 'node:assert/strict';
import { test } from 'node:test';
import { reasonToDeny } from './rule.js';

test('only who is on the list may see it', () => {
  assert.equal(reasonToDeny('ann', { users: ['ann'] }), null);
  assert.equal(reasonToDeny('bob', { users: ['ann'] }), 'bob is not on the list');
  assert.equal(reasonToDeny('bob', {}), 'bob is not on the list');
});

test('a wrong configuration is told', () => {
  assert.throws(() => reasonToDeny('ann', { users: 'ann' }), { tag: 'invalid-config' });
});
