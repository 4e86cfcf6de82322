/** Returns an event's data in upper case; of a JSON object only the named members, if any are named. */
export function uppercase(data, members) {
  if (members !== undefined && !Array.isArray(members)) {
    throw { tag: 'invalid-config', val: '`members` is no list of names' };
  }
  switch (data?.tag) {
    case 'json':
      return { tag: 'json', val: JSON.stringify(object(JSON.parse(data.val), members)) };
    case 'text':
      return { tag: 'text', val: data.val.toUpperCase() };
    default:
      throw { tag: 'invalid-event', val: `there is no text in ${data ? 'binary data' : 'an event without data'}` };
  }
}

function object(value, members) {
  if (members === undefined) return texts(value);
  if (!isObject(value)) throw { tag: 'invalid-event', val: 'the data is no JSON object' };
  const chosen = ([name, value]) => [name, members.includes(name) ? texts(value) : value];
  return Object.fromEntries(Object.entries(value).map(chosen));
}

/** Upper-cases every text of a JSON value, but no names of members. */
function texts(value) {
  if (typeof value === 'string') return value.toUpperCase();
  if (Array.isArray(value)) return value.map(texts);
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, value]) => [name, texts(value)]));
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
