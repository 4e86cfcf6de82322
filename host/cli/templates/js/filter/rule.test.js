import assert from 'node:assert/strict';
import { test } from 'node:test';
import { reasonToSkip } from './rule.js';

const event = (data) => ({ data: { tag: 'json', val: JSON.stringify(data) } });

test('small files are skipped', () => {
  assert.equal(reasonToSkip(event({ size: 10 }), { smallest: 10 }), null);
  assert.equal(reasonToSkip(event({ size: 9 }), { smallest: 10 }), 'size 9 < 10');
  assert.equal(reasonToSkip(event({ size: 9 }), {}), null);
});

test('an event without a size and a wrong configuration are told', () => {
  assert.throws(() => reasonToSkip({ data: null }, {}), { tag: 'invalid-event' });
  assert.throws(() => reasonToSkip(event({ size: 9 }), { smallest: 'ten' }), { tag: 'invalid-config' });
});
