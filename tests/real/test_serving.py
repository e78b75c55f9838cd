"""The server of the API on real sockets, and clients that behave badly; on a clock that jumps when
nobody has anything to do, so that what is never done ends a test, and is not waited for."""

import logging
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from trio.testing import MockClock

from restorefs.control import problems
from restorefs.control.guard import Guard, Hosts
from restorefs.control.metrics import ApiFigures
from restorefs.control.query import json_body
from restorefs.control.server import listen_tcp, listen_unix, serve, tls_context
from restorefs.control.sessions import Doorkeeper
from restorefs.control.streaming import Streamed, Write
from tests.tools import require, run

Endpoint = Callable[[Request], Awaitable[Response]]
Connect = Callable[[], Awaitable[trio.SocketStream]]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
LONG = 300.0


@asynccontextmanager
async def served(
    figures: ApiFigures | None = None, tls: ssl.SSLContext | None = None, **calls: Endpoint
) -> AsyncIterator[Connect]:
    """Serve calls by name; yields what connects to them."""
    app = Starlette(
        routes=[Route("/" + name, call, methods=["GET", "POST"]) for name, call in calls.items()],
        exception_handlers={problems.ProblemError: problems.answer, Exception: problems.bug},
    )
    guard = Guard(app, Doorkeeper(None), Hosts(), figures or ApiFigures(), ())
    with tempfile.TemporaryDirectory(prefix="restorefs-") as folder:
        path = Path(folder) / "control.sock"
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, guard, listen_unix(path), tls)
            yield lambda: trio.open_unix_socket(path)
            nursery.cancel_scope.cancel()


async def streamed(request: Request) -> Response:
    async def make(write: Write) -> None:
        for _ in range(3):
            await write(b"piece ")

    return Streamed(make, {"Content-Type": "text/plain"})


async def whole(request: Request) -> Response:
    return Response("whole")


async def body(request: Request) -> Response:
    return Response(str(await json_body(request, "a")))


def get(call: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET /{call} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


async def rest(stream: trio.SocketStream) -> bytes:
    """Return what comes until the server ends the connection, which it must."""
    got = b""
    with trio.fail_after(LONG):
        async for piece in stream:
            got += piece
    return got


# Who asks nothing


@pytest.mark.parametrize("call", [streamed, whole])
async def test_a_connection_ends_when_nothing_more_is_asked(
    call: Endpoint, autojump_clock: MockClock
) -> None:
    async with served(call=call) as connect, await connect() as client:
        for _ in range(2):
            await client.send_all(get("call"))
        got = await rest(client)
        assert got.count(b"HTTP/1.1 200") == 2, "one after the other"


@pytest.mark.parametrize("sent", [b"", b"GET / HT", PREFACE, get("call") + b"GET / HT"])
async def test_a_connection_without_a_request_ends(sent: bytes, autojump_clock: MockClock) -> None:
    async with served(call=streamed) as connect, await connect() as client:
        await client.send_all(sent)
        await rest(client)


@pytest.mark.parametrize("shakes_hands", [False, True])
async def test_a_connection_over_tls_ends(
    shakes_hands: bool, tmp_path: Path, autojump_clock: MockClock
) -> None:
    require("openssl")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=x", "-addext", "subjectAltName=DNS:x", "-keyout", key, "-out", cert),
    )
    trusting = ssl.create_default_context(cafile=str(cert))
    async with served(tls=tls_context(cert, key), call=streamed) as connect:
        raw = await connect()
        async with raw:
            if shakes_hands:
                client = trio.SSLStream(raw, trusting, server_hostname="x", https_compatible=True)
                await client.send_all(get("call"))
                with trio.fail_after(LONG):
                    got = b"".join([piece async for piece in client])
                assert got.startswith(b"HTTP/1.1 200 ")
            else:
                assert await rest(raw) == b""


async def test_what_is_sent_and_never_read_holds_no_connection(autojump_clock: MockClock) -> None:
    async def late(request: Request) -> Response:
        await trio.sleep(1)  # more comes meanwhile than has room on the way
        return Response("whole")

    async with served(call=late) as connect, await connect() as client:
        chunked = get("call", "Transfer-Encoding: chunked")
        await client.send_all(chunked + b"1\r\nx\r\n" * 100)
        assert (await rest(client)).endswith(b"whole")


async def test_http2_is_never_begun(autojump_clock: MockClock) -> None:
    async with served(call=whole) as connect:
        async with await connect() as client:
            await client.send_all(PREFACE)
            assert (await rest(client)).startswith(b"HTTP/1.1 505 ")
        async with await connect() as client:
            upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA")
            await client.send_all(get("call", *upgrade))
            got = await rest(client)
            assert got.startswith(b"HTTP/1.1 200 ")
            assert got.endswith(b"whole"), "by the protocol that it was asked in"


def test_a_peer_that_vanished_is_found_out() -> None:
    with (
        closing(listen_tcp("127.0.0.1", 0)) as listening,
        closing(socket.create_connection(listening.getsockname())),
    ):
        listening.setblocking(True)
        connected, _ = listening.accept()
        with closing(connected):
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


# Who leaves


async def test_nothing_goes_on_for_a_client_that_left(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    begun, ended = trio.Event(), trio.Event()

    async def call(request: Request) -> Response:
        begun.set()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
            raise AssertionError
        finally:
            ended.set()

    figures = ApiFigures()
    async with served(figures, call=call) as connect:
        async with await connect() as client:
            await client.send_all(get("call"))
            await begun.wait()
        with trio.fail_after(LONG):
            await ended.wait()
            await trio.testing.wait_all_tasks_blocked()
        assert figures.requests == {("GET", "/call", 499): 1}
    assert not caplog.records


async def test_a_client_that_leaves_in_its_body(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.DEBUG)
    figures = ApiFigures()
    async with served(figures, call=body) as connect:
        async with await connect() as client:
            await client.send_all(b"POST /call HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(LONG):
            while not figures.requests:
                await trio.sleep(1)
        assert figures.requests == {("POST", "/call", 499): 1}
    assert not caplog.records


async def test_a_client_that_leaves_before_its_answer_is_taken(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """Of a large one, as listings are."""
    figures = ApiFigures()

    async def call(request: Request) -> Response:
        return Response(bytes(16 << 20))

    async with served(figures, call=call) as connect:
        async with await connect() as client:
            await client.send_all(get("call"))
            await client.receive_some(1000)
        with trio.fail_after(LONG):
            while not figures.requests:
                await trio.sleep(1)
    assert not caplog.records


async def test_bodies(autojump_clock: MockClock) -> None:
    async with served(call=body) as connect:
        for sent, answer in (
            (b'2\r\n{"\r\n3\r\na":\r\n2\r\n1}\r\n0\r\n\r\n', b"{'a': 1}"),
            (b"4000\r\n%s\r\n" % (b" " * 0x4000) * 20 + b"0\r\n\r\n", b"262144 bytes"),
        ):
            async with await connect() as client:
                head = b"POST /call HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                await client.send_all(head + sent)
                assert answer in await rest(client)
