// What Waypost calls. What it decides stands in decision.js, which runs in plain Node too.

import { all } from 'waypost:plugin/config@0.1.0';
import { write } from 'waypost:plugin/log@0.1.0';

import { decision } from './decision.js';

export const policy = {
  decide(event, target, context) {
    const answer = decision(event, context.user, JSON.parse(all()));
    write('debug', 'decided', [['user', context.user], ['decision', answer.tag]]);
    return answer;
  },
};
