"""What was used last, of values that may be small or very large.

Owns how many of either are kept: a file in a million pieces is legal, and hundreds of such must not
fill the memory. Not for more than one thread; no method awaits.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

from restorefs.guestfs.lru import Lru

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")

_LARGE = 1024
_KEPT_LARGE = 8


class Kept(Generic[_Key, _Value]):
    """At most `capacity` values, and a few of those that have many parts."""

    def __init__(self, capacity: int) -> None:
        self._small: Lru[_Key, _Value] = Lru(capacity)
        self._large: Lru[_Key, _Value] = Lru(_KEPT_LARGE)

    def get(self, key: _Key) -> _Value | None:
        """Return the value and count it as used, or None."""
        value = self._small.get(key)
        return self._large.get(key) if value is None else value

    def put(self, key: _Key, value: _Value, parts: int) -> None:
        """Keep a value that consists of so many parts."""
        (self._large if parts > _LARGE else self._small).put(key, value)
