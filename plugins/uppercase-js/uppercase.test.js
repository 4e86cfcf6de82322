import assert from 'node:assert/strict';
import { test } from 'node:test';
import { uppercase } from './uppercase.js';

const json = (value) => ({ tag: 'json', val: JSON.stringify(value) });

test('every text of JSON data is upper-cased, names and numbers stay', () => {
  const data = json({ title: 'Größe', tags: ['a', { b: 'c' }], size: 5, gone: null });
  assert.deepEqual(uppercase(data), json({ title: 'GRÖSSE', tags: ['A', { b: 'C' }], size: 5, gone: null }));
  assert.deepEqual(uppercase(json('a')), json('A'));
});

test('only the named members are', () => {
  assert.deepEqual(uppercase(json({ a: 'x', b: 'y' }), ['a', 'c']), json({ a: 'X', b: 'y' }));
  assert.throws(() => uppercase(json(['x']), ['a']), { tag: 'invalid-event' });
});

test('text is upper-cased, binary data and no data are invalid events', () => {
  assert.deepEqual(uppercase({ tag: 'text', val: 'hello' }), { tag: 'text', val: 'HELLO' });
  assert.throws(() => uppercase({ tag: 'binary', val: new Uint8Array([1]) }), { tag: 'invalid-event' });
  assert.throws(() => uppercase(null), { tag: 'invalid-event' });
});

test('members that are no list are an invalid configuration', () => {
  assert.throws(() => uppercase(json({}), 'a'), { tag: 'invalid-config' });
});
