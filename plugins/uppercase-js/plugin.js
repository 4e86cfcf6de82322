// Sends events with their texts in upper case.
import { all } from 'waypost:plugin/config@0.1.0';
import { write } from 'waypost:plugin/log@0.1.0';
import { uppercase } from './uppercase.js';

export const transform = {
  apply(event, context) {
    const { members } = JSON.parse(all());
    const data = uppercase(event.data, members);
    write('info', 'upper-cased', [['members', members?.join(', ') ?? 'all']]);
    return [{ tag: 'event', val: { ...event, data } }];
  },
};
