/** Returns why a user may not see an event, or null when they may. */
export function reasonToDeny(user, { users = [] }) {
  if (!Array.isArray(users)) throw { tag: 'invalid-config', val: '`users` is no list' };
  return users.includes(user) ? null : `${user} is not on the list`;
}
