"""Serves the API in the daemon's own loop.

Owns the sockets: a unix one in a folder of mode 0700, which only the daemon's user and root can
reach, and those of TCP; how many connections there may be, and that a client which takes nothing is
given up. Must not know the calls.

Concurrency: a task for each connection, of hypercorn's trio worker. It shields what it sends from
being cancelled, so that waiting for a client is bounded here, and ended when the daemon ends.
"""

import logging
import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from struct import Struct

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp

from restorefs.control.accepting import Listener
from restorefs.control.sessions import PEER
from restorefs.errors import ConfigError

log = logging.getLogger(__name__)
_BACKLOG = 128
_MAX_CONNECTIONS = 512
_SEND_SECONDS = 60.0
_LINGER_SECONDS = 1.0
_DRAINED = 65_536
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
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
    config.ssl_handshake_timeout = 10.0
    await _Server(app, config, tls).run(listening, task_status)


class _Server:
    """Connections to one socket."""

    def __init__(self, app: ASGIApp, config: Config, tls: ssl.SSLContext | None) -> None:
        self._app = ASGIWrapper(app)  # type: ignore[arg-type]
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
        transport: object = stream
        if self._tls is not None:
            transport = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
        try:
            await TCPServer(
                self._app,
                self._config,
                self._context,
                ConnectionState({}),
                transport,  # type: ignore[arg-type]
            ).run()
        except Exception as error:  # noqa: BLE001 - what one client sends must end nobody else's
            log.info("a connection ended with an unexpected error: %r", error)
        finally:
            self._open.discard(stream)
            self._places.release()
            with trio.CancelScope(shield=True):
                await raw.aclose()


class _Bounded(trio.abc.HalfCloseableStream):
    """A connection whose client is given up when it takes nothing for a minute, or when the daemon
    ends."""

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
        if not self._abandoned:
            with trio.move_on_after(_SEND_SECONDS) as self._sending:
                await self._stream.send_all(data)
            late = self._sending.cancelled_caught
            self._sending = None
            if not late:
                return
        await self._stream.aclose()
        raise trio.BrokenResourceError("the client takes nothing")

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
