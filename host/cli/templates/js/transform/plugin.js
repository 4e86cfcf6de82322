// Sends a chat message instead of an event.
import { all } from 'waypost:plugin/config@0.1.0';
import { write } from 'waypost:plugin/log@0.1.0';
import { message } from './rule.js';

export const transform = {
  apply(event, context) {
    const body = { tag: 'json', val: JSON.stringify(message(event, JSON.parse(all()))) };
    write('debug', 'wrote a message', [['id', event.id]]);
    return [{ tag: 'raw', val: { contentType: 'application/json', headers: [], body } }];
  },
};
