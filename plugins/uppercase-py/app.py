"""Sends events with their texts in upper case."""

import json
from dataclasses import replace

import uppercase
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.transform import Output, Output_Event
from wit_world.imports import config, log, types
from wit_world.imports.types import CallContext, Event, Payload_Json, Payload_Text


class Transform(exports.Transform):
    def apply(self, event: Event, context: CallContext) -> list[Output]:
        members = json.loads(config.all()).get("members")
        try:
            data = upper(event.data, uppercase.names(members))
        except uppercase.InvalidConfig as error:
            raise Err(types.PluginError_InvalidConfig(str(error)))
        except uppercase.InvalidEvent as error:
            raise Err(types.PluginError_InvalidEvent(str(error)))
        log.write(log.Level.INFO, "upper-cased", [("members", "all" if members is None else ", ".join(members))])
        return [Output_Event(replace(event, data=data))]


def upper(data: types.Payload | None, members: list[str] | None) -> types.Payload:
    """Returns an event's data in upper case."""
    match data:
        case Payload_Json(text):
            value = uppercase.value(json.loads(text), members)
            return Payload_Json(json.dumps(value, ensure_ascii=False))
        case Payload_Text(text):
            return Payload_Text(text.upper())
        case None:
            raise uppercase.InvalidEvent("there is no text in an event without data")
        case _:
            raise uppercase.InvalidEvent("there is no text in binary data")
