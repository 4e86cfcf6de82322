// What Waypost calls. What it sends stands in message.js, which runs in plain Node too.

import { all } from 'waypost:plugin/config@0.1.0';
import { write } from 'waypost:plugin/log@0.1.0';

import { message } from './message.js';

export const transform = {
  apply(event, context) {
    const text = message(event, JSON.parse(all()));
    write('debug', 'wrote a message', [['text', text]]);
    const body = { tag: 'json', val: JSON.stringify({ text }) };
    return [{ tag: 'raw', val: { contentType: 'application/json', headers: [], body } }];
  },
};
