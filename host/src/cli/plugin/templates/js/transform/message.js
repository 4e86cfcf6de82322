/**
 * Writes a chat message about an event: its type and its subject, after a `prefix`.
 *
 * A thrown `{ tag, val }` is an error that Waypost understands: `invalid-event` (a dead letter), `invalid-config` (the
 * subscription is disabled), `unavailable` (retried), `internal`. Anything else that is thrown ends the instance.
 */
export function message(event, { prefix = '' }) {
  if (typeof prefix !== 'string') {
    throw { tag: 'invalid-config', val: '`prefix` is no text' };
  }
  return `${prefix}${event.type} ${event.subject ?? event.id}`;
}
