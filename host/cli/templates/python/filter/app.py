"""Lets events pass whose file is large enough."""

import json

import rule
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.filter import Verdict, Verdict_Deliver, Verdict_Skip
from wit_world.imports import config, log, types
from wit_world.imports.types import CallContext, Event, Payload_Json


class Filter(exports.Filter):
    def evaluate(self, event: Event, context: CallContext) -> Verdict:
        data = json.loads(event.data.value) if isinstance(event.data, Payload_Json) else None
        try:
            reason = rule.reason_to_skip(data, json.loads(config.all()))
        except rule.InvalidEvent as error:
            raise Err(types.PluginError_InvalidEvent(str(error)))
        except rule.InvalidConfig as error:
            raise Err(types.PluginError_InvalidConfig(str(error)))
        log.write(log.Level.DEBUG, "looked at the size", [("wanted", str(reason is None))])
        return Verdict_Deliver() if reason is None else Verdict_Skip(reason)
