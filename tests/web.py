"""A web server of the tests' own, with a certificate that it signed itself.

Owns one server on a free port of 127.0.0.1 that knows ranges, as qemu demands, and what goes wrong
with it. Knows nothing of restorefs. Concurrency: a thread for each connection; `with` ends them.
"""

import base64
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeAlias

from tests.tools import require, run

Content: TypeAlias = Callable[[], bytes]


class WebServer(ThreadingHTTPServer):
    """Serves `contents` by path, without the slash; `login` is the "user:password" it wants.

    requests: the method and path of each, in order. The connections whose requests come while
    `hangs` is set get no answer.
    """

    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.contents: dict[str, Content] = {}
        self.login: str | None = None
        self.requests: list[tuple[str, str]] = []
        self.answers = threading.Event()
        self.answers.set()
        self._open: list[socket.socket] = []
        self.scheme = "http" if certificate is None else "https"
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate, certificate.with_suffix(".key"))

    def hang_up(self) -> None:
        """End the connections that are open: a client may keep one for its next request."""
        for connection in self._open:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, path: str, login: str = "") -> str:
        return f"{self.scheme}://{login}localhost:{self.port}/{path}"

    def finish_request(self, request: socket.socket, address: object) -> None:  # type: ignore[override]
        request.settimeout(60)
        try:
            if self._context is not None:
                request = self._context.wrap_socket(request, server_side=True)
            self._open.append(request)
            with request:
                _Handler(request, address, self)
        except OSError:  # it was not content with our certificate, or was killed
            pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        server = self.server
        path = self.path[1:].partition("?")[0]
        server.requests.append((self.command, self.path[1:]))
        if not server.answers.wait(60):
            return
        login = server.login and "Basic " + base64.b64encode(server.login.encode()).decode()
        if login and self.headers.get("Authorization") != login:
            self._send(401, b"", {"WWW-Authenticate": "Basic"})
        elif path not in server.contents:
            self._send(404, b"", {})
        else:
            data = server.contents[path]()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if wanted is None:
                self._send(200, data, {"Accept-Ranges": "bytes"})
            else:
                first, last = map(int, wanted.groups())
                part = data[first : last + 1]
                place = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
                self._send(206, part, {"Accept-Ranges": "bytes", "Content-Range": place})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def make_certificate(folder: Path) -> Path:
    """Make a certificate for localhost, and beside it its key."""
    require("openssl")
    certificate = folder / "localhost.pem"
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        *("-keyout", certificate.with_suffix(".key"), "-out", certificate),
    )
    return certificate


@contextmanager
def web_server(certificate: Path | None = None) -> Iterator[WebServer]:
    """Have a server run: https where there is a certificate."""
    server = WebServer(certificate)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.answers.set()
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()


@contextmanager
def silent_server() -> Iterator[int]:
    """Have a port of localhost where connections are taken and nothing is ever said; yields it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield int(listener.getsockname()[1])
