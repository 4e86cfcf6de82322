"""Which events are wanted. It knows nothing of Waypost."""


class InvalidEvent(Exception):
    """This event can never be judged."""


class InvalidConfig(Exception):
    """The subscription's configuration is wrong."""


def reason_to_skip(data: object, config: dict) -> str | None:
    """Returns why an event with this data is not wanted, or None when it is."""
    smallest = config.get("smallest", 0)
    if not isinstance(smallest, (int, float)):
        raise InvalidConfig("`smallest` is no number")
    size = data.get("size") if isinstance(data, dict) else None
    if not isinstance(size, (int, float)):
        raise InvalidEvent("the data has no number `size`")
    return f"size {size} < {smallest}" if size < smallest else None
