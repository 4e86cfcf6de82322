"""What Waypost calls. What it decides stands in decision.py, which runs in plain Python too."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.policy import Decision, Decision_Allow, Decision_Deny
from wit_world.imports import config, log
from wit_world.imports.types import CallContext, Event, PluginError_InvalidConfig

import decision


class Policy(exports.Policy):
    def decide(self, event: Event, target: str, context: CallContext) -> Decision:
        try:
            reason = decision.reason_to_deny(dict(event.extensions), context.user, **json.loads(config.all()))
        except decision.InvalidConfig as error:
            raise Err(PluginError_InvalidConfig(str(error)))
        log.write(log.Level.DEBUG, "decided", [("user", context.user), ("denied", str(reason is not None))])
        return Decision_Allow() if reason is None else Decision_Deny(reason)
