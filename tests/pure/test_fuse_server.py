"""Requests and workers, over a socket in place of /dev/fuse: it, too, keeps messages whole."""

import errno
import math
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from restorefs.errors import DamagedError, KeyNeededError
from restorefs.fuse.protocol import HEADER, REPLY_HEADER, Opcode
from restorefs.fuse.request import Request
from restorefs.fuse.server import Answering, Handler, Server

ASK = 1000  # opcodes that the kernel does not have
WAIT = 1001


class Kernel:
    """The other end: asks, and reads answers as (unique, errno, data)."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def ask(self, opcode: int, unique: int, body: bytes = b"") -> None:
        header = HEADER.pack(HEADER.size + len(body), opcode, unique, 7, 1, 2, 3, 0, 0)
        self._end.send(header + body)

    async def answer(self) -> tuple[int, int, bytes]:
        await trio.lowlevel.wait_readable(self._end)
        message = self._end.recv(1 << 20)
        length, number, unique = REPLY_HEADER.unpack_from(message)
        assert length == len(message)
        return unique, -number, message[REPLY_HEADER.size :]

    def nothing_more(self) -> bool:
        try:
            return not self._end.recv(1)
        except BlockingIOError:
            return True

    def unmount(self) -> None:
        self._end.close()


@asynccontextmanager
async def serving(
    handlers: dict[int, Handler], request_timeout: float = math.inf
) -> AsyncIterator[tuple[Server, Kernel]]:
    """Run a server until the block ends and the kernel has unmounted."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        kernel = Kernel(theirs)
        server = Server(ours.fileno(), handlers, request_timeout)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            yield server, kernel
            kernel.unmount()


def echo(request: Request) -> None:
    request.reply(request.body)


async def test_what_can_be_answered_at_once_is() -> None:
    async with serving({ASK: echo}) as (_, kernel):
        for unique in range(100):  # more than are answered in one go
            kernel.ask(ASK, unique, b"%d" % unique)
        for unique in range(100):
            assert await kernel.answer() == (unique, 0, b"%d" % unique)


async def test_who_asks() -> None:
    def asked(request: Request) -> None:
        asker = (request.node, request.uid, request.gid, request.pid)
        request.reply(repr(asker).encode())

    async with serving({ASK: asked}) as (_, kernel):
        kernel.ask(ASK, 1)
        assert await kernel.answer() == (1, 0, b"(7, 1, 2, 3)")


async def test_a_request_that_waits_holds_up_no_other() -> None:
    async with held() as (_, kernel, go_on):
        for unique in range(1, 101):
            kernel.ask(WAIT, unique)
        kernel.ask(ASK, 200, b"quick")
        assert await kernel.answer() == (200, 0, b"quick")
        go_on()
        assert {(await kernel.answer())[0] for _ in range(100)} == set(range(1, 101))
        kernel.ask(ASK, 201, b"again")
        assert await kernel.answer() == (201, 0, b"again")


async def test_what_nobody_answers_is_enosys() -> None:
    async with serving({}) as (_, kernel):
        kernel.ask(Opcode.OPEN, 5)
        assert await kernel.answer() == (5, errno.ENOSYS, b"")


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    ("error", "number"), [(DamagedError("x"), errno.EIO), (KeyNeededError("x"), errno.ENOKEY)]
)
async def test_an_error_gives_its_errno(
    at_once: bool, error: Exception, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving({ASK: failing(error, at_once)}) as (_, kernel):
        kernel.ask(ASK, 1)
        assert await kernel.answer() == (1, number, b"")
    assert not caplog.records


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_bug_is_logged_and_ends_nothing(
    at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    handlers: dict[int, Handler] = {
        Opcode.GETATTR: failing(ZeroDivisionError("oops"), at_once),
        ASK: echo,
    }
    async with serving(handlers) as (_, kernel):
        kernel.ask(Opcode.GETATTR, 1)
        assert await kernel.answer() == (1, errno.EIO, b"")
        kernel.ask(ASK, 2, b"still here")
        assert await kernel.answer() == (2, 0, b"still here")
    assert "unexpected error in GETATTR of node 0x7" in caplog.text
    assert "oops" in caplog.text


async def test_a_bug_behind_the_answer_does_not_answer_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(request: Request) -> None:
        request.reply(b"done")
        raise ZeroDivisionError("late")

    async with serving({ASK: handler}) as (_, kernel):
        kernel.ask(ASK, 1)
        assert await kernel.answer() == (1, 0, b"done")
        await trio.testing.wait_all_tasks_blocked()
        assert kernel.nothing_more()
    assert "late" in caplog.text


async def test_a_request_that_takes_too_long_is_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(_request: Request) -> None:
        await trio.sleep(3600)

    async with serving({ASK: slow}, request_timeout=10) as (_, kernel):
        began = trio.current_time()
        kernel.ask(ASK, 1)
        assert await kernel.answer() == (1, errno.ETIMEDOUT, b"")
        assert trio.current_time() - began == pytest.approx(10)
        await trio.testing.wait_all_tasks_blocked()
        assert kernel.nothing_more()


async def test_who_is_interrupted_waits_no_longer(autojump_clock: trio.testing.MockClock) -> None:
    ended: list[int] = []

    async def hang(request: Request) -> None:
        try:
            await trio.sleep(100 * request.unique)
            request.reply(b"late")
        finally:
            ended.append(request.unique)

    async with serving({WAIT: hang}) as (_, kernel):
        began = trio.current_time()
        for unique in range(1, 4):
            kernel.ask(WAIT, unique)
        await trio.testing.wait_all_tasks_blocked()
        for unique in (2, 2, 3):  # as a process does that gets more than one signal
            kernel.ask(Opcode.INTERRUPT, 10 + unique, unique.to_bytes(8, "little"))
        assert sorted([await kernel.answer(), await kernel.answer()]) == [
            (2, errno.EINTR, b""),
            (3, errno.EINTR, b""),
        ]
        assert 0 < trio.current_time() - began < 2
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(ended) == [2, 3], "nothing goes on for nobody"
        assert await kernel.answer() == (1, 0, b"late"), "who was not interrupted"
        await trio.testing.wait_all_tasks_blocked()
        assert kernel.nothing_more()


async def test_a_signal_is_no_error_where_the_answer_comes_soon() -> None:
    async with held() as (_, kernel, go_on):
        kernel.ask(WAIT, 1)
        await trio.testing.wait_all_tasks_blocked()
        kernel.ask(Opcode.INTERRUPT, 2, (1).to_bytes(8, "little"))
        kernel.ask(ASK, 3, b"meanwhile")
        assert await kernel.answer() == (3, 0, b"meanwhile")
        go_on()
        assert await kernel.answer() == (1, 0, b"held")
        kernel.ask(Opcode.INTERRUPT, 4, (1).to_bytes(8, "little"))  # it was answered
        kernel.ask(ASK, 5, b"after")
        assert await kernel.answer() == (5, 0, b"after")
        assert kernel.nothing_more()


async def test_stopping_answers_what_was_asked_and_takes_no_more() -> None:
    async with held() as (server, kernel, go_on):
        kernel.ask(WAIT, 1)
        await trio.testing.wait_all_tasks_blocked()
        server.stop()
        kernel.ask(ASK, 2, b"too late")
        await trio.testing.wait_all_tasks_blocked()
        assert kernel.nothing_more()
        go_on()
        assert await kernel.answer() == (1, 0, b"held")
        await trio.testing.wait_all_tasks_blocked()
        assert kernel.nothing_more()


async def test_stopping_ends_what_goes_on_behind_an_answer() -> None:
    async def look_ahead(request: Request) -> None:
        request.reply(b"done")
        await trio.sleep_forever()

    async with serving({ASK: look_ahead}) as (server, kernel):
        kernel.ask(ASK, 1)
        assert await kernel.answer() == (1, 0, b"done")
        server.stop()


async def test_an_answer_that_the_kernel_does_not_take_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def too_much(request: Request) -> None:
        assert not request.reply(bytes(16 << 20))  # no message of a socket is so large

    async with serving({WAIT: too_much, ASK: echo}) as (_, kernel):
        kernel.ask(WAIT, 1)
        kernel.ask(ASK, 2, b"still here")
        assert await kernel.answer() == (2, 0, b"still here")
    assert "the kernel takes no answer to request 1001" in caplog.text


async def test_a_server_ends_when_cancelled() -> None:
    handlers: dict[int, Handler] = {WAIT: forever, ASK: echo}
    with trio.CancelScope() as scope:
        async with serving(handlers) as (_, kernel):
            for unique in range(5):
                kernel.ask(WAIT, unique)
            kernel.ask(ASK, 9, b"listening")
            assert await kernel.answer() == (9, 0, b"listening")
            scope.cancel()
    assert scope.cancelled_caught


async def forever(_request: Request) -> None:
    await trio.sleep_forever()


@asynccontextmanager
async def held() -> AsyncIterator[tuple[Server, Kernel, Callable[[], None]]]:
    """Serve requests that wait until they are told to go on."""
    event = trio.Event()

    async def wait(request: Request) -> None:
        await event.wait()
        request.reply(b"held")

    async with serving({WAIT: wait, ASK: echo}) as (server, kernel):
        yield server, kernel, event.set


def failing(error: Exception, at_once: bool) -> Handler:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    def handler(_request: Request) -> Answering | None:
        if at_once:
            raise error
        return fail()

    return handler
