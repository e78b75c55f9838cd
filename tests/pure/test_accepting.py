"""Taking connections: what is said while no more files can be opened."""

import errno
import os
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from restorefs.control.accepting import Listener

TAKEN = cast(trio.SocketStream, object())


class Full(trio.abc.Listener[trio.SocketStream]):
    """Accepts nothing until a time, for a reason."""

    def __init__(self, until: float, reason: int = errno.EMFILE) -> None:
        self.tries = 0
        self._until = until
        self._reason = reason

    async def accept(self) -> trio.SocketStream:
        self.tries += 1
        await trio.lowlevel.checkpoint()
        if trio.current_time() < self._until:
            raise OSError(self._reason, os.strerror(self._reason))
        return TAKEN

    async def aclose(self) -> None:
        pass


async def test_a_full_table_of_files_is_said_once_in_a_while(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    full = Full(trio.current_time() + 150)
    places = trio.Semaphore(2)
    assert await Listener(full, places).accept() is TAKEN
    assert full.tries > 1000
    assert [(each.levelname, each.exc_info) for each in caplog.records] == [("WARNING", None)] * 3
    assert "Too many open files" in caplog.text
    assert places.value == 1


async def test_other_errors_are_no_full_table() -> None:
    places = trio.Semaphore(1)
    listener: Any = Listener(Full(trio.current_time() + 1, errno.EBADF), places)
    with pytest.raises(OSError, match="Bad file"):
        await listener.accept()
    assert places.value == 1
