/**
 * Shows events with the extension attribute `restricted` to `users` only, and all others to everybody.
 *
 * A thrown `{ tag, val }` is an error that Waypost understands: `invalid-event` (a dead letter), `invalid-config` (the
 * subscription is disabled), `unavailable` (retried), `internal`. Anything else that is thrown ends the instance.
 */
export function decision(event, user, { users = [] }) {
  if (!Array.isArray(users)) {
    throw { tag: 'invalid-config', val: '`users` is no list' };
  }
  const restricted = event.extensions.some(([name, value]) => name === 'restricted' && value === 'true');
  return restricted && !users.includes(user)
    ? { tag: 'deny', val: `${user} may not see restricted events` }
    : { tag: 'allow' };
}
