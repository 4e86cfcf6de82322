"""Sends a chat message instead of an event."""

import json

import rule
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.transform import Output, Output_Raw, RawBody
from wit_world.imports import config, log, types
from wit_world.imports.types import CallContext, Event, Payload_Json


class Transform(exports.Transform):
    def apply(self, event: Event, context: CallContext) -> list[Output]:
        try:
            message = rule.message(event.type, event.source, json.loads(config.all()))
        except rule.InvalidConfig as error:
            raise Err(types.PluginError_InvalidConfig(str(error)))
        log.write(log.Level.DEBUG, "wrote a message", [("id", event.id)])
        body = Payload_Json(json.dumps(message))
        return [Output_Raw(RawBody(content_type="application/json", headers=[], body=body))]
