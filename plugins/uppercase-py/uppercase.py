"""Upper-cases JSON values, independent of Waypost."""


class InvalidEvent(Exception):
    """This event can never be upper-cased."""


class InvalidConfig(Exception):
    """The subscription's configuration is wrong."""


def names(members: object) -> list[str] | None:
    """Returns the names of the members to upper-case, from the configuration; None means all."""
    if members is not None and not isinstance(members, list):
        raise InvalidConfig("`members` is no list of names")
    return members


def value(data: object, members: list[str] | None) -> object:
    """Returns a JSON value with its texts in upper case; of an object only the named members, if any are named."""
    if members is None:
        return texts(data)
    if not isinstance(data, dict):
        raise InvalidEvent("the data is no JSON object")
    return {name: texts(member) if name in members else member for name, member in data.items()}


def texts(data: object) -> object:
    """Upper-cases every text, but no names of members."""
    match data:
        case str():
            return data.upper()
        case list():
            return [texts(item) for item in data]
        case dict():
            return {name: texts(member) for name, member in data.items()}
        case _:
            return data
