"""Turns of the event loop, counted while something runs.

Owns a task that wants to run all the time. Says without a clock whether a long loop lets others
run. Concurrency: one task each.
"""

from types import TracebackType
from typing import Self

import trio


class Turns:
    """Used with `async with`: `count` is how often another task ran meanwhile."""

    def __init__(self) -> None:
        self.count = 0
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> Self:
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(self._run)
        return self

    async def _run(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.count += 1

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(kind, error, traceback)
