"""What is sent. It knows nothing of Waypost."""


class InvalidConfig(Exception):
    """The subscription's configuration is wrong."""


def message(type_: str, source: str, config: dict) -> dict[str, str]:
    """Returns the chat message about an event."""
    prefix = config.get("prefix", "New")
    if not isinstance(prefix, str):
        raise InvalidConfig("`prefix` is no text")
    return {"text": f"{prefix}: {type_} from {source}"}
