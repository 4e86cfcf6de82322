// Lets events pass whose file is large enough.
import { all } from 'waypost:plugin/config@0.1.0';
import { write } from 'waypost:plugin/log@0.1.0';
import { reasonToSkip } from './rule.js';

export const filter = {
  evaluate(event, context) {
    const reason = reasonToSkip(event, JSON.parse(all()));
    write('debug', 'looked at the size', [['wanted', String(reason === null)]]);
    return reason === null ? { tag: 'deliver' } : { tag: 'skip', val: reason };
  },
};
