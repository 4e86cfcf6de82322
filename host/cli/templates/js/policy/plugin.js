// Says who may see events: those on a list.
import { all } from 'waypost:plugin/config@0.1.0';
import { write } from 'waypost:plugin/log@0.1.0';
import { reasonToDeny } from './rule.js';

export const policy = {
  decide(event, target, context) {
    const reason = reasonToDeny(context.user, JSON.parse(all()));
    write('debug', 'decided', [['user', context.user], ['allowed', String(reason === null)]]);
    return reason === null ? { tag: 'allow' } : { tag: 'deny', val: reason };
  },
};
