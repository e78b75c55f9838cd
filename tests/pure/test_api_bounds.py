"""How long the API waits for a client, on a clock that jumps."""

import socket

import pytest
import trio
from starlette.requests import Request
from starlette.types import Message
from trio.testing import MockClock

from restorefs.control.problems import ProblemError
from restorefs.control.query import form_body, json_body
from restorefs.control.server import _Bounded

SOON = 35.0
FORM = [(b"content-type", b"application/x-www-form-urlencoded")]


def slow_request() -> Request:
    """Return a request whose body does not come."""

    async def receive() -> Message:
        await trio.sleep_forever()
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/", "headers": FORM}
    return Request(scope, receive)


@pytest.mark.parametrize("read", [json_body, form_body])
async def test_a_body_that_does_not_come(read: object, autojump_clock: MockClock) -> None:
    assert callable(read)
    with trio.fail_after(SOON), pytest.raises(ProblemError, match="did not come within") as raised:
        await read(slow_request())
    assert raised.value.status == 408


async def test_a_client_that_takes_nothing_is_given_up(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0.01  # the kernel's buffers fill in no time
    ours, theirs = socket.socketpair()
    with theirs:
        raw = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        stream = _Bounded(raw)
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError, match="takes nothing"):
            await stream.send_all(bytes(64 << 20))
        assert 55 < trio.current_time() - began < 65
        assert ours.fileno() == -1


async def test_a_client_that_takes_little_at_a_time_is_not(autojump_clock: MockClock) -> None:
    content = bytes(4 << 20)
    got = bytearray()
    ours, theirs = socket.socketpair()
    client = trio.socket.from_stdlib_socket(theirs)
    stream = _Bounded(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))

    async def take() -> None:
        while piece := await client.recv(128 << 10):
            got.extend(piece)
            await trio.sleep(30)

    with client:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await stream.send_all(content)
            assert trio.current_time() - began > 600
            await stream.aclose()
        assert got == content
