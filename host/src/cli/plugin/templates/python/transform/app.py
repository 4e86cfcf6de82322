"""What Waypost calls. What it sends stands in message.py, which runs in plain Python too."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.transform import Output, Output_Raw, RawBody
from wit_world.imports import config, log
from wit_world.imports.types import CallContext, Event, Payload_Json, PluginError_InvalidConfig

import message


class Transform(exports.Transform):
    def apply(self, event: Event, context: CallContext) -> list[Output]:
        try:
            text = message.text(event.type, event.subject or event.id, **json.loads(config.all()))
        except message.InvalidConfig as error:
            raise Err(PluginError_InvalidConfig(str(error)))
        log.write(log.Level.DEBUG, "wrote a message", [("text", text)])
        body = Payload_Json(json.dumps({"text": text}))
        return [Output_Raw(RawBody(content_type="application/json", headers=[], body=body))]
