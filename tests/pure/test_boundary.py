"""What leaves a request handler, and when."""

import errno
import logging
import math

import pyfuse3
import pytest
import trio
import trio.testing

from restorefs.errors import DamagedError, KeyNeededError
from restorefs.fuse.boundary import handler


class Asked:
    """Handlers of every kind."""

    def __init__(self, request_timeout: float = math.inf) -> None:
        self.request_timeout = request_timeout

    @handler
    async def answer(self, value: int) -> int:
        await trio.lowlevel.checkpoint()
        return value

    @handler
    async def fail(self, error: Exception) -> None:
        raise error

    @handler
    async def wait(self, seconds: float) -> str:
        await trio.sleep(seconds)
        return "done"


@pytest.mark.parametrize("request_timeout", [math.inf, 5.0])
async def test_answers_and_errors(request_timeout: float, caplog: pytest.LogCaptureFixture) -> None:
    asked = Asked(request_timeout)
    assert await asked.answer(7) == 7
    for error, number in (
        (DamagedError("x"), errno.EIO),
        (KeyNeededError("x"), errno.ENOKEY),
        (pyfuse3.FUSEError(errno.ENODATA), errno.ENODATA),
    ):
        with pytest.raises(pyfuse3.FUSEError) as raised:
            await asked.fail(error)
        assert raised.value.errno == number
    assert not caplog.records


async def test_a_bug_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await Asked().fail(ZeroDivisionError("oops"))
    assert raised.value.errno == errno.EIO
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "oops" in caplog.text


async def test_cancellation_passes() -> None:
    with trio.move_on_after(0) as scope:
        await Asked(request_timeout=5.0).wait(60)
    assert scope.cancelled_caught


async def test_a_request_ends_before_the_kernel_gives_it_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    begin = trio.current_time()
    with pytest.raises(pyfuse3.FUSEError) as raised:
        await Asked(request_timeout=5.0).wait(60)
    assert raised.value.errno == errno.ETIMEDOUT
    assert trio.current_time() - begin == pytest.approx(5.0)
    assert await Asked(request_timeout=5.0).wait(4) == "done"
    assert await Asked().wait(1e6) == "done"
