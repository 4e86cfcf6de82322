"""Who may see events. It knows nothing of Waypost."""


class InvalidConfig(Exception):
    """The subscription's configuration is wrong."""


def reason_to_deny(user: str, config: dict) -> str | None:
    """Returns why a user may not see an event, or None when they may."""
    users = config.get("users", [])
    if not isinstance(users, list):
        raise InvalidConfig("`users` is no list")
    return None if user in users else f"{user} is not on the list"
