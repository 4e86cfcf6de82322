"""Writes a chat message about an event: its type and what it is about, after a `prefix`."""


class InvalidConfig(Exception):
    """The subscription's configuration is wrong."""


def text(type_: str, about: str, prefix: str = "", **_: object) -> str:
    """Returns the message."""
    if not isinstance(prefix, str):
        raise InvalidConfig("`prefix` is no text")
    return f"{prefix}{type_} {about}"
