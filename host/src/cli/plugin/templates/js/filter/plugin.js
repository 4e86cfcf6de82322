// What Waypost calls. What it decides stands in verdict.js, which runs in plain Node too.

import { all } from 'waypost:plugin/config@0.1.0';
import { write } from 'waypost:plugin/log@0.1.0';

import { verdict } from './verdict.js';

export const filter = {
  evaluate(event, context) {
    const answer = verdict(event, JSON.parse(all()));
    write('debug', 'looked at the size', [['verdict', answer.tag]]);
    return answer;
  },
};
