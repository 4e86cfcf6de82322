/** Returns the chat message about an event. */
export function message(event, { prefix = 'New' }) {
  if (typeof prefix !== 'string') throw { tag: 'invalid-config', val: '`prefix` is no text' };
  return { text: `${prefix}: ${event.type} from ${event.source}` };
}
