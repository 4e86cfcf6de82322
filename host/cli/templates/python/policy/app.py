"""Says who may see events: those on a list."""

import json

import rule
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.policy import Decision, Decision_Allow, Decision_Deny
from wit_world.imports import config, log, types
from wit_world.imports.types import CallContext, Event


class Policy(exports.Policy):
    def decide(self, event: Event, target: str, context: CallContext) -> Decision:
        try:
            reason = rule.reason_to_deny(context.user, json.loads(config.all()))
        except rule.InvalidConfig as error:
            raise Err(types.PluginError_InvalidConfig(str(error)))
        log.write(log.Level.DEBUG, "decided", [("user", context.user), ("allowed", str(reason is None))])
        return Decision_Allow() if reason is None else Decision_Deny(reason)
