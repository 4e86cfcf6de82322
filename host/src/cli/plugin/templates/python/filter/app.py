"""What Waypost calls. What it decides stands in verdict.py, which runs in plain Python too."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.filter import Verdict, Verdict_Deliver, Verdict_Skip
from wit_world.imports import config, log
from wit_world.imports.types import (
    CallContext,
    Event,
    Payload_Json,
    PluginError_InvalidConfig,
    PluginError_InvalidEvent,
)

import verdict


class Filter(exports.Filter):
    def evaluate(self, event: Event, context: CallContext) -> Verdict:
        data = json.loads(event.data.value) if isinstance(event.data, Payload_Json) else None
        try:
            reason = verdict.reason_to_skip(data, **json.loads(config.all()))
        except verdict.InvalidEvent as error:
            raise Err(PluginError_InvalidEvent(str(error)))
        except verdict.InvalidConfig as error:
            raise Err(PluginError_InvalidConfig(str(error)))
        log.write(log.Level.DEBUG, "looked at the size", [("skipped", str(reason is not None))])
        return Verdict_Deliver() if reason is None else Verdict_Skip(reason)
