"""Shows events with the extension attribute `restricted` to `users` only, and all others to everybody."""

from collections.abc import Mapping, Sequence


class InvalidConfig(Exception):
    """The subscription's configuration is wrong."""


def reason_to_deny(
    extensions: Mapping[str, str], user: str, users: Sequence[str] = (), **_: object
) -> str | None:
    """Returns why this user may not see an event with these extension attributes, or None if they may."""
    if not isinstance(users, (list, tuple)):
        raise InvalidConfig("`users` is no list")
    if extensions.get("restricted") != "true" or user in users:
        return None
    return f"{user} may not see restricted events"
