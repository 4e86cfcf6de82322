/** Returns why the event is not wanted, or null when it is. */
export function reasonToSkip(event, { smallest = 0 }) {
  if (typeof smallest !== 'number') throw { tag: 'invalid-config', val: '`smallest` is no number' };
  const data = event.data?.tag === 'json' ? JSON.parse(event.data.val) : null;
  if (typeof data?.size !== 'number') throw { tag: 'invalid-event', val: 'the data has no number `size`' };
  return data.size < smallest ? `size ${data.size} < ${smallest}` : null;
}
