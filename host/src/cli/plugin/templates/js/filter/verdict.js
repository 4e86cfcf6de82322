/**
 * Wants the events whose data has a `size` of at least `smallest` bytes.
 *
 * A thrown `{ tag, val }` is an error that Waypost understands: `invalid-event` (a dead letter), `invalid-config` (the
 * subscription is disabled), `unavailable` (retried), `internal`. Anything else that is thrown ends the instance.
 */
export function verdict(event, { smallest = 0 }) {
  if (typeof smallest !== 'number') {
    throw { tag: 'invalid-config', val: '`smallest` is no number' };
  }
  const size = event.data?.tag === 'json' ? JSON.parse(event.data.val)?.size : undefined;
  if (typeof size !== 'number') {
    throw { tag: 'invalid-event', val: 'the data has no number `size`' };
  }
  return size < smallest ? { tag: 'skip', val: `size ${size} < ${smallest}` } : { tag: 'deliver' };
}
