"""What every request must pass, and what every answer carries.

Owns: HTTP/1.1 only; a Host that is ours, so that no other name leads a browser here; an Origin
that is the Host, so that no other page acts through one; who asks; the size of a request; the
headers that keep a browser strict; that every request is counted. Must not know the calls.
"""

import ipaddress
import time
from collections.abc import Collection
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from restorefs.control import problems
from restorefs.control.metrics import ApiFigures
from restorefs.control.problems import ProblemError
from restorefs.control.sessions import PEER, Doorkeeper
from restorefs.control.who import KEY
from restorefs.session.asker import ASKER, Client

_MAX_BODY = 256 << 10
_TOO_LARGE = 413
_SAFE = ("GET", "HEAD", "OPTIONS")
_OPEN_CALLS = ("/healthz", "/api/v1/openapi.json", "/api/v1/session")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class Hosts:
    """The names that a request may be addressed to."""

    def __init__(self, listened: Collection[tuple[str, int]] = (), also: Collection[str] = ()):
        """`listened`: addresses and ports. `also`: further names, with a port or for any."""
        self._ports = {port for _, port in listened}
        self._names = {each.lower() for each in also}
        self._any_address = False
        for host, port in listened:
            address = ipaddress.ip_address(host)
            # Names can be made to lead to any address, but nobody owns a name that is an address.
            self._any_address |= address.is_unspecified
            names = ["localhost"] if address.is_loopback or address.is_unspecified else []
            names.append(f"[{host}]" if address.version == 6 else host)
            self._names |= {f"{name}:{port}".lower() for name in names}
            if port in (80, 443):  # which browsers leave out
                self._names |= {name.lower() for name in names}

    def have(self, host: str) -> bool:
        """Whether a Host header names us."""
        host = host.lower()
        try:
            parts = urlsplit("//" + host)
            name, port = parts.hostname or "", parts.port
        except ValueError:
            return False
        if host in self._names or name in self._names:
            return True
        if not self._any_address or (port or 80) not in self._ports:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Guard:
    """Stands in front of an application."""

    def __init__(
        self, app: ASGIApp, doorkeeper: Doorkeeper, hosts: Hosts, figures: ApiFigures
    ) -> None:
        self._app = app
        self._doorkeeper = doorkeeper
        self._hosts = hosts
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1002})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(raw=list(message.get("headers", [])))
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if status == _TOO_LARGE:  # its body is not read to the end: nothing can follow it
                    headers["Connection"] = "close"
                message = {**message, "headers": headers.raw}
            await send(message)

        try:
            await self._pass(scope, receive, sending)
        finally:
            route = scope.get("route")
            call = route.path if route is not None else "other"
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._figures.count(method, call, status, time.perf_counter() - began)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        # As bytes: a name need not be UTF-8.
        scope["path"] = unquote(scope["raw_path"].decode("ascii"), errors="surrogateescape")
        try:
            self._check(scope)
            limited = _Limited(receive, scope)
        except ProblemError as error:
            response = await problems.answer(Request(scope), error)
            await response(scope, receive, send)
            return
        await self._app(scope, limited.receive, send)

    def _check(self, scope: Scope) -> None:
        """Raise ProblemError for what is not to be answered."""
        if scope["http_version"] not in ("1.0", "1.1"):
            raise ProblemError(505, "HTTP/1.1 is spoken here")
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) > 1:
            raise ProblemError(400, "more than one Host")
        if PEER.get() is None:
            if not self._hosts.have(host):
                raise ProblemError(421, f"{host!r} is not a name of this server; see --allow-host")
            origin = headers.get("origin")
            foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
            if scope["method"] not in _SAFE and foreign:
                raise ProblemError(403, f"pages of {origin!r} may not do this here")
        path = scope["path"]
        if path in _OPEN_CALLS or not (path.startswith("/api/") or path == "/metrics"):
            scope[KEY] = None  # for these, whoever asks may; see session() in app.py
            return
        who = self._doorkeeper.who(headers.get("authorization"), headers.get("cookie"))
        scope[KEY] = who
        ASKER.set(Client(who.name))


_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


class _Limited:
    """A request's body, up to a size."""

    def __init__(self, receive: Receive, scope: Scope) -> None:
        """Raises ProblemError for one that says that it is too large."""
        self._receive = receive
        self._left = _MAX_BODY
        said = Headers(scope=scope).get("content-length", "0")
        if said.isascii() and said.isdigit() and int(said[:20]) > _MAX_BODY:
            raise ProblemError(_TOO_LARGE, f"a request may have {_MAX_BODY} bytes")

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise ProblemError(_TOO_LARGE, f"a request may have {_MAX_BODY} bytes")
        return message
