"""Wants the events whose data has a `size` of at least `smallest` bytes."""


class InvalidEvent(Exception):
    """This event can never be judged."""


class InvalidConfig(Exception):
    """The subscription's configuration is wrong."""


def reason_to_skip(data: object, smallest: float = 0, **_: object) -> str | None:
    """Returns why an event with this data is not wanted, or None if it is."""
    if not isinstance(smallest, (int, float)):
        raise InvalidConfig("`smallest` is no number")
    size = data.get("size") if isinstance(data, dict) else None
    if not isinstance(size, (int, float)):
        raise InvalidEvent("the data has no number `size`")
    return f"size {size} < {smallest}" if size < smallest else None
