"""Serves the API in the daemon's own loop.

Owns the sockets: a unix one in a folder of mode 0700, which only the daemon's user and root can
reach, and those of TCP; how many connections there may be, and that a client which asks nothing or
takes nothing is given up. Must not know the calls.

Concurrency: a task for each connection, of hypercorn's trio worker. It shields what it sends from
being cancelled, so that waiting for a client is bounded here, and ended when the daemon ends.
"""

import logging
import math
import os
import socket
import ssl
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from struct import Struct
from termios import TIOCOUTQ

import trio
from h11 import Request
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr
from starlette.types import ASGIApp, Receive, Scope, Send

from restorefs.control.accepting import Listener
from restorefs.control.sessions import PEER
from restorefs.errors import ConfigError

log = logging.getLogger(__name__)
_BACKLOG = 128
_MAX_CONNECTIONS = 512
_SEND_SECONDS = 60.0
_SEND_BYTES = 65_536
_HANDSHAKE_SECONDS = 10.0
_UNASKED_SECONDS = 20.0  # more than hypercorn's own, which end a connection in order
_LINGER_SECONDS = 1.0
_DRAINED = 65_536
_INT = Struct("i")
_UCRED = Struct("3i")  # pid, uid, gid: unix(7)


def listen_unix(path: Path) -> socket.socket:
    """Return a socket that listens, for its owner alone."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o077)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    listening.listen(_BACKLOG)
    listening.setblocking(False)
    return listening


def listen_tcp(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 has the kernel choose one. Raises ConfigError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"--listen {host}: {error.strerror or error}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What is set here, every connection has.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if family == socket.AF_INET6:  # what is on the other family is somebody else's, or ours
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ConfigError(f"--listen {host} port {port}: {error.strerror}") from error
    return listening


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what TLS needs. Raises ConfigError for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for option, path in (("--tls-cert", certificate), ("--tls-key", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{option} {path}: {error.strerror}") from error
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--tls-cert {certificate}, --tls-key {key}: {error}") from error
    return context


async def serve(
    app: ASGIApp,
    listening: socket.socket,
    tls: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application on a socket that listens until cancelled; it is closed then."""
    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    await _Server(app, config, tls).run(listening, task_status)


class _Server:
    """Connections to one socket."""

    def __init__(self, app: ASGIApp, config: Config, tls: ssl.SSLContext | None) -> None:
        self._app = app
        self._config = config
        self._tls = tls
        self._context = WorkerContext(None)
        self._open: set[_Bounded] = set()
        self._places = trio.Semaphore(_MAX_CONNECTIONS)

    async def run(self, listening: socket.socket, task_status: trio.TaskStatus[None]) -> None:
        listener = Listener(
            trio.SocketListener(trio.socket.from_stdlib_socket(listening)), self._places
        )
        async with trio.open_nursery() as connections:
            try:
                task_status.started()
                await trio.serve_listeners(self._connected, [listener], handler_nursery=connections)
            finally:
                await self._context.terminated.set()
                connections.cancel_scope.cancel()
                for stream in self._open:
                    stream.abandon()

    async def _connected(self, raw: trio.SocketStream) -> None:
        PEER.set(_peer(raw.socket))
        stream = _Bounded(raw)
        self._open.add(stream)
        try:
            await _Connection(self._app, self._config, self._context, stream, self._tls).run()
        except Exception as error:  # noqa: BLE001 - what one client sends must end nobody else's
            log.info("a connection ended with an unexpected error: %r", error)
        finally:
            self._open.discard(stream)
            self._places.release()
            with trio.CancelScope(shield=True):
                await raw.aclose()


class _Connection(TCPServer):
    """One connection: requests one after another, and without one only for so long.

    HTTP/1.1 alone: hypercorn would speak HTTP/2 with whoever begins so, and wait for ever.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: Config,
        context: WorkerContext,
        stream: "_Bounded",
        tls: ssl.SSLContext | None,
    ) -> None:
        transport: object = stream
        if tls is not None:
            transport = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        super().__init__(
            self._answer,  # type: ignore[arg-type]
            config,
            context,
            ConnectionState({}),
            transport,  # type: ignore[arg-type]
        )
        self._answers = app
        self._raw = stream.socket
        self._tls = tls is not None
        self._unasked = trio.CancelScope()

    async def run(self) -> None:
        """Serve it to its end."""
        if self._tls:
            try:
                with trio.fail_after(_HANDSHAKE_SECONDS):
                    await self.stream.do_handshake()
            except (trio.BrokenResourceError, trio.TooSlowError):
                return
        self._unasked.deadline = trio.current_time() + _UNASKED_SECONDS
        with self._unasked:
            try:
                client, server = (
                    parse_socket_addr(self._raw.family, address)
                    for address in (self._raw.getpeername(), self._raw.getsockname())
                )
                async with TaskGroup() as self._task_group:
                    self.protocol = _Http11(  # type: ignore[assignment]
                        self.app,
                        self.config,
                        self.context,
                        self._task_group,
                        ConnectionState({}),
                        self._tls,
                        client,
                        server,
                        self.protocol_send,
                    )
                    await self.idle_task.restart(self._task_group, self._idle_timeout)
                    await self._read_data()
            except OSError:  # the client is gone
                pass
            finally:
                await self._close()

    async def _answer(self, scope: Scope, receive: Receive, send: Send, *_: object) -> None:
        """Answer one request."""
        self._unasked.deadline = math.inf
        try:
            await self._answers(scope, receive, send)
        finally:
            self._unasked.deadline = trio.current_time() + _UNASKED_SECONDS


class _Http11(H11Protocol):
    """HTTP/1.1, whatever else a client wishes."""

    async def _check_protocol(self, event: Request) -> None:
        """Let no request begin another protocol: who asks for HTTP/2 with an Upgrade is answered
        without (RFC 9110, 7.8), and what is said to be HTTP/2 is refused as a request."""


class _Bounded(trio.abc.HalfCloseableStream):
    """A connection whose client is given up when it takes less than 64 KiB in a minute, or when the
    daemon ends."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket
        self._stream = stream
        self._sending: trio.CancelScope | None = None
        self._abandoned = False
        self._reading = False
        self._closing: trio.Event | None = None  # set when nobody reads any more

    def abandon(self) -> None:
        """Wait for the client no more."""
        self._abandoned = True
        if self._sending is not None:
            self._sending.cancel()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while len(view):
            view = view[await self._send(view) :]

    async def _send(self, data: memoryview) -> int:
        """Send some of it; return how much."""
        while not self._abandoned:
            before = self._untaken()
            with trio.move_on_after(_SEND_SECONDS) as self._sending:
                try:
                    return await self.socket.send(data)
                except OSError as error:
                    raise trio.BrokenResourceError("the client is gone") from error
            # The kernel has room for more only when it got rid of a good part of what it has.
            if before - self._untaken() < _SEND_BYTES:
                break
        await self._stream.aclose()
        raise trio.BrokenResourceError("the client takes nothing")

    def _untaken(self) -> int:
        """Return how many bytes the kernel has for the client; 0 when nobody knows."""
        try:
            found = ioctl(self.socket.fileno(), TIOCOUTQ, bytes(_INT.size))
        except (OSError, ValueError):
            return 0
        return int(_INT.unpack(found)[0])

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self._reading = True
        try:
            data = await self._stream.receive_some(max_bytes)
            while self._closing is not None and data:
                data = await self._stream.receive_some(_DRAINED)
            return data
        finally:
            self._reading = False
            if self._closing is not None:
                self._closing.set()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close when the client has had its answer: to close with input unread would reset the
        connection, and take back an answer that the client has not read (RFC 9112, 9.6)."""
        if not self._abandoned:
            with (
                trio.move_on_after(_LINGER_SECONDS),
                suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError),
            ):
                self._closing = trio.Event()
                await self._stream.send_eof()
                if self._reading:  # a task that is told nothing of it goes on until the end
                    await self._closing.wait()
                else:
                    await self.receive_some(_DRAINED)
        await self._stream.aclose()


def _peer(connected: trio.socket.SocketType) -> int | None:
    """Return the user at the other end of a unix socket, None over TCP."""
    if connected.family != socket.AF_UNIX:
        return None
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(found)[1])
