"""A bounded memory of what was used last.

Owns nothing but the order of use. Not for more than one thread; no method awaits.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Lru(Generic[_Key, _Value]):
    """At most `capacity` values; the least recently used one goes first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = max(1, capacity)
        self._values: OrderedDict[_Key, _Value] = OrderedDict()

    def get(self, key: _Key) -> _Value | None:
        """Return the value and count it as used, or None."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: _Key, value: _Value) -> None:
        """Keep a value."""
        self._values[key] = value
        if len(self._values) > self._capacity:
            self._values.popitem(last=False)

    def put_all(self, values: Iterable[tuple[_Key, _Value]]) -> None:
        """Keep many values."""
        self._values.update(values)
        for _ in range(len(self._values) - self._capacity):
            self._values.popitem(last=False)
