"""Single flight: one task produces a result, any number wait for it.

Owns the hand-over of a value or an error from the producing task to its waiters. A waiter that is
cancelled does not disturb the others. Errors are RestoreErrors; anything else is a bug, logged
here once, because nobody but the waiters would see it.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

from restorefs.errors import RestoreError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Once(Generic[T]):
    """A result in the making."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._value: list[T] = []
        self.error: RestoreError | None = None

    async def run(self, make: Callable[[], Awaitable[T]]) -> None:
        """Produce the result; run as a task of a nursery that outlives the waiters."""
        try:
            self._value.append(await make())
        except RestoreError as error:
            self.error = error
        except Exception as error:
            log.exception("unexpected error")
            self.error = RestoreError(f"internal error: {error!r}")
        except BaseException:
            self.error = RestoreError("was cancelled")
            raise
        finally:
            self._done.set()

    @property
    def value(self) -> T | None:
        """The result if it is there already."""
        return self._value[0] if self._value else None

    async def wait(self) -> T:
        """Return the result as soon as it is there; raises the RestoreError it failed with."""
        if not self._done.is_set():
            await self._done.wait()
        if self.error is not None:
            raise type(self.error)(*self.error.args)
        return self._value[0]
